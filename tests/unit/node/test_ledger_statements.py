"""Statements that are spelled once."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from dicom_node.ledger.statements import Statement

TABLE = sa.Table(
    "t", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("word", sa.Text)
)
ADD = Statement(sa.insert(TABLE).values(word=sa.bindparam("word")).returning(TABLE.c.id))
PUT = Statement(sa.insert(TABLE).values(word=sa.bindparam("word"), id=sa.bindparam("id")))
FIND = Statement(sa.select(TABLE.c.word).where(TABLE.c.id == sa.bindparam("number")))


def test_rows_go_in_and_come_back() -> None:
    engine = sa.create_engine("sqlite://")
    TABLE.metadata.create_all(engine)
    with engine.begin() as connection:
        assert ADD.run(connection, {"word": "a", "unused": 1}) == [(1,)]
        PUT.run_many(connection, [{"id": 5, "word": "b"}, {"word": "c", "id": 6}])
        PUT.run_many(connection, [])
        assert [FIND.run(connection, {"number": number}) for number in (1, 5, 6, 7)] == [
            [("a",)],
            [("b",)],
            [("c",)],
            [],
        ]
        with pytest.raises(sa.exc.IntegrityError):
            PUT.run(connection, {"id": 5, "word": "b"})
    engine.dispose()


def test_another_kind_of_database_gets_its_own_spelling() -> None:
    spelled = FIND._for(postgresql.dialect())  # type: ignore[no-untyped-call]
    assert "%(number)s" in spelled.text
    assert spelled.fixed == {}
    assert spelled.given({"number": 1}) == {"number": 1}


def test_values_that_are_part_of_it_need_not_be_given() -> None:
    engine = sa.create_engine("sqlite://")
    TABLE.metadata.create_all(engine)
    mark = Statement(sa.update(TABLE).where(TABLE.c.id == sa.bindparam("number")).values(word="marked"))
    first = Statement(sa.select(TABLE.c.word).order_by(TABLE.c.id).limit(sa.bindparam("limit")))
    with engine.begin() as connection:
        PUT.run_many(connection, [{"id": number, "word": "plain"} for number in (1, 2, 3)])
        assert mark.run_many(connection, [{"number": number} for number in (1, 2, 9)]) == 2
        assert first.run(connection, {"limit": 2}) == [("marked",), ("marked",)]
    engine.dispose()
