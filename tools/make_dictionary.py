"""Writes the frozen dictionary of format v1, core/blessmark/payload/dictionary_v1.bin.

Kept as the record of where the dictionary came from: every value is invented or is common knowledge
(manufacturers' UID roots, modality codes, character sets, everyday names). No header of any patient went
into it. The file is frozen with format v1; another dictionary is another format.

    python -m tools.make_dictionary [FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from blessmark.payload.record import Kind

TARGET = Path(__file__).parent.parent / "core" / "blessmark" / "payload" / "dictionary_v1.bin"

PERSONS = """
Anonymous|Anonymized|ANONYMOUS|Anonymous^Patient|ANON^PATIENT|Doe^Jane|Doe^John|DOE^JANE^^^|DOE^JOHN
Test^Patient|TEST^PATIENT|Phantom^QA|PHANTOM|TEST|Patient^Test^A|REMOVED|DEIDENTIFIED|Unknown^Unknown|^^^^
SMITH^JOHN|Smith^Mary^A|JOHNSON^ROBERT^J|Williams^Patricia|BROWN^MICHAEL|Jones^Linda|GARCIA^MARIA
Miller^David|DAVIS^ELIZABETH|Rodriguez^Jose|Martinez^Ana|Wilson^Barbara|ANDERSON^SUSAN|Taylor^Thomas
Thomas^Sarah|MOORE^CHARLES|Jackson^Karen|Martin^Christopher|Lee^Nancy|Thompson^Daniel|White^Lisa
Harris^Matthew|Clark^Margaret|Lewis^Anthony|Robinson^Sandra|Walker^Mark|Young^Ashley|Allen^Steven
King^Kimberly|Wright^Paul|Scott^Emily|Mueller^Hans|MUELLER^ANNA|Schmidt^Peter|Schneider^Klaus
Fischer^Ursula|Weber^Michael|Meyer^Monika|Wagner^Andreas|Becker^Stefan|Hoffmann^Petra|Dupont^Marie
Bernard^Jean|Durand^Pierre|Petit^Sophie|Rossi^Mario|Ferrari^Giulia|Russo^Luca|Bianchi^Francesca|Novak^Jan
Kowalski^Adam|Nowak^Katarzyna|Ivanov^Ivan|Jansen^Johannes|de Vries^Anna|Hansen^Lars|Nielsen^Karen
Andersson^Erik|Yamada^Taro|YAMADA^TARO|Tanaka^Hanako|Suzuki^Ichiro|SATO^KENJI|Watanabe^Yuki|Kim^Minsu
Wang^Wei|WANG^XIAOMING|Li^Na|Zhang^Min|Chen^Jing|Nguyen^Van|Patel^Raj|Singh^Amit|Kumar^Priya|Khan^Ali
Silva^Joao|Santos^Ana
"""
#: UTF-8, Latin 1 and ISO 2022 spellings, so that the model has seen each of them
FOREIGN_PERSONS = (
    "Müller^Jürgen".encode("latin-1"),
    "Müller^Jörg".encode(),
    "Lefèvre^Hélène".encode(),
    "王^小明".encode(),
    "Wang^XiaoMing=王^小明".encode(),
    "Иванов^Иван".encode(),
    b"YAMADA^TARO=" + "山田^太郎=やまだ^たろう".encode("iso2022_jp"),
    b"TANAKA^HANAKO=" + "田中^花子=たなか^はなこ".encode("iso2022_jp"),
)
PATIENT_IDS = """
1|0|00000000|000000|123456|12345678|1234567|0000000001|ANON|ANON0001|Anonymous|TEST001|TEST|PAT001|PATIENT1
P0001|ID0001|ID1|MRN123456|PHANTOM|QA|10023456|20456789|30512874|40917263|5582013|60741|7093358|8261940
99887766|A1234567|B7654321|E100234|S00012345|X0001|001|0012|00345|REMOVED|M12345|1001|2019-0001|CT001|MR001
"""
ACCESSIONS = """
1|0|A1000001|A0012345678|20200001|ACC0001|CT123456|MR123456|US123456|CR123456|E12345678|10000001|20011234
30022345|4004567|5008910|600123|7001928|80012|90034|2020123456|2018012345|2015000123|0000000001|00001234
12345|12345678
"""
INSTITUTIONS = """
General Hospital|GENERAL HOSPITAL|University Hospital|UNIVERSITY HOSPITAL|University Medical Center
Medical Center|MEDICAL CENTER|St. Mary's Hospital|ST JOSEPH HOSPITAL|St. Elisabeth Krankenhaus
Universitaetsklinikum|Klinikum|Radiologie|Radiology|RADIOLOGY|Department of Radiology
Diagnostic Imaging Center|IMAGING CENTER|Imaging Centre|Memorial Hospital|Community Hospital
Children's Hospital|Regional Medical Center|Health System|Clinic|CLINIC|Hopital|CHU
Centre Hospitalier|Ospedale|Ospedale Civile
Azienda Ospedaliera|Policlinico|Hospital Universitario|HOSPITAL CLINICO|Clinica|Institute
National Institute of Health|Cancer Center|Research Center|Institution|INSTITUTION|Hospital Name|Anonymous
Anonymized|Academisch Ziekenhuis|Ziekenhuis|Sjukhus|Praxis|Hospital|of|and|City Hospital|Royal Infirmary
NHS Trust
"""
PHYSICIANS = """
Unknown|UNKNOWN|Smith^John|SMITH^JOHN^^DR|Dr. Smith|Doe^John^^Dr.|^^^^|Referring^Physician|ANONYMOUS
Anonymous|SELF|Jones^Robert^^^MD|MILLER^ANNA^^^MD
"""
MODALITIES = """
CT|CT|CT|CT|CT|MR|MR|MR|MR|MR|US|US|US|US|CR|CR|CR|DX|DX|DX|MG|MG|NM|PT|XA|RF|OT|SC|OP|OPT|ES|IO|PX|RTDOSE
RTSTRUCT|RTIMAGE|SEG|SR|PR|KO|ECG|XC|SM|GM|IVUS|BMD
"""
UID_ROOTS = """
1.2.840.113619.2.|1.2.840.113619.2.55.3.|1.2.840.113619.2.5.|1.2.840.113619.2.80.|1.2.840.113619.2.134.1.
1.2.840.113619.2.176.|1.2.840.113619.2.278.3.|1.2.840.113619.6.|1.3.12.2.1107.5.1.4.|1.3.12.2.1107.5.2.
1.3.12.2.1107.5.2.30.|1.3.12.2.1107.5.2.43.|1.3.12.2.1107.5.3.|1.3.12.2.1107.5.4.|1.3.12.2.1107.5.8.
1.3.46.670589.11.|1.3.46.670589.11.0.0.11.4.2.0.|1.3.46.670589.14.|1.3.46.670589.26.|1.3.46.670589.30.
1.3.46.670589.33.1.|1.3.46.670589.5.|1.2.392.200036.9116.2.6.1.48.|1.2.392.200036.9116.2.5.1.48.
1.2.392.200036.9116.2.|1.2.392.200036.9107.|1.2.392.200036.9123.100.1|1.2.392.200036.9125.2.
1.2.392.200036.9125.4.|1.2.392.200046.100.|1.2.392.200039.|1.2.276.0.7230010.3.1.2.|1.2.276.0.7230010.3.1.3.
1.2.276.0.7230010.3.1.4.|1.2.276.0.|1.3.6.1.4.1.14519.5.2.1.|1.3.6.1.4.1.14519.5.2.1.|1.3.6.1.4.1.9328.50.
1.3.6.1.4.1.9590.100.1.|1.3.6.1.4.1.5962.1.1.|1.3.6.1.4.1.5962.1.2.|1.3.6.1.4.1.5962.1.3.
1.3.6.1.4.1.19291.2.1.|1.3.6.1.4.1.|1.3.6.1.4.1.25403.|1.3.6.1.4.1.20029.|1.2.826.0.1.3680043.2.
1.2.826.0.1.3680043.2.1143.|1.2.826.0.1.3680043.8.498.|1.2.826.0.1.3680043.8.498.|1.2.826.0.1.3680043.9.
1.2.826.0.1.3680043.10.|1.2.826.0.1.3680043.6.|2.25.1|2.25.2|2.25.|1.2.840.113704.1.111.|1.2.840.113704.7.
1.2.840.113564.|1.2.840.113564.99.|1.2.840.113663.1500.|1.2.840.113654.2.|1.2.840.113674.
1.2.840.113680.1.103.|1.2.840.113681.|1.2.840.113696.|1.2.840.113711.|1.2.840.113713.|1.2.840.113717.
1.2.840.113754.|1.2.840.113786.|1.2.840.113837.|1.2.840.113845.11.|1.2.840.114051.|1.2.840.114158.
1.2.840.114202.|1.2.840.114257.|1.2.840.114340.3.|1.2.840.114350.|1.2.840.114356.|1.2.124.113532.
1.2.528.1.1001.|1.3.51.0.7.|1.3.76.13.|1.2.250.1.|1.2.410.200010.|1.2.156.|1.2.752.24.|2.16.840.1.113669.632.
2.16.840.1.114488.|2.16.840.1.113662.|2.16.756.|1.2.840.10008.
"""
SOP_CLASS_UIDS = """
1.2.840.10008.5.1.4.1.1.1|1.2.840.10008.5.1.4.1.1.1.1|1.2.840.10008.5.1.4.1.1.1.2|1.2.840.10008.5.1.4.1.1.2
1.2.840.10008.5.1.4.1.1.2.1|1.2.840.10008.5.1.4.1.1.4|1.2.840.10008.5.1.4.1.1.6.1|1.2.840.10008.5.1.4.1.1.7
1.2.840.10008.5.1.4.1.1.12.1|1.2.840.10008.5.1.4.1.1.20|1.2.840.10008.5.1.4.1.1.77.1.5.1
1.2.840.10008.5.1.4.1.1.128
"""
DESCRIPTIONS = """
CT HEAD|CT HEAD W/O CONTRAST|CT CHEST|CT ABDOMEN|CT ABDOMEN PELVIS W CONTRAST|Thorax|Abdomen|MRI BRAIN
MR BRAIN W/WO CONTRAST|T1 AXIAL|T2 AXIAL|FLAIR|t2_tse_tra|t1_mprage_sag|Localizer|SCOUT|Chest PA|CHEST AP
XR CHEST 2 VIEWS|US ABDOMEN|Echocardiogram|KNEE|SPINE LUMBAR
"""
BODY_PARTS = "HEAD|CHEST|ABDOMEN|PELVIS|BRAIN|NECK|SPINE|KNEE|HAND|FOOT|BREAST|HEART|EYE|RETINA"
AGES = "045Y|062Y|071Y|033Y|054Y|028Y|080Y|006M|012D"
NUMBERS = "1|1|1|2|2|3|4|5|6|7|8|10|12|15|20|25|32|64|100|128|201|301|1001"
#: padded to even length as in a header, less the one space that padding gives back
CHARSETS = """
|ISO_IR 100|ISO_IR 100|ISO_IR 100|ISO_IR 192|ISO_IR 192|ISO_IR 6|ISO_IR 101|ISO_IR 109|ISO_IR 110|ISO_IR 144
ISO_IR 127|ISO_IR 126|ISO_IR 138|ISO_IR 148|ISO_IR 13|ISO_IR 166|GB18030|GBK|\\ISO 2022 IR 87
\\ISO 2022 IR 149|ISO 2022 IR 6\\ISO 2022 IR 87|ISO 2022 IR 13\\ISO 2022 IR 87|ISO 2022 IR 100
\\ISO 2022 IR 58|\\ISO 2022 IR 87\\ISO 2022 IR 159
"""
NODES = (
    "|dicom-node|dicom-node|node|node-1|node1|gateway|gateway-1|pacs|pacs-1|radiology|hospital|site-a|edge-1"
)
SEGMENTERS = (
    "anatomy/1|anatomy/1|anatomy/1|anatomy/1|vessels/1|vessels/1|none|whole-image/1|anatomy/2|vessels/2"
)
DEVICES = """
GE MEDICAL SYSTEMS|SIEMENS|Siemens HealthCare GmbH|Philips|Philips Medical Systems|TOSHIBA|HITACHI
CANON_MEC|FUJIFILM Corporation|Agfa|Carestream Health|HOLOGIC, Inc.|SAMSUNG MEDISON|ACUSON|Topcon|ZEISS
CT01|MR01
"""


class _Digits:
    """Invented digits: a linear congruential sequence (Knuth's MMIX), the same everywhere."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def below(self, bound: int) -> int:
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self._state >> 33) % bound

    def digits(self, count: int) -> str:
        return "".join(str(self.below(10)) for _ in range(count))

    def date(self, first: int, last: int) -> str:
        year = first + self.below(last - first + 1)
        return f"{year:04d}{1 + self.below(12):02d}{1 + self.below(28):02d}"

    def time(self) -> str:
        return f"{7 + self.below(12):02d}{self.below(60):02d}{self.below(60):02d}"


def values() -> Iterator[tuple[Kind, bytes]]:
    """Every value of the dictionary with its class; how often one occurs says how likely it is."""
    yield from ((Kind.PERSON, value) for value in FOREIGN_PERSONS)
    for kind, value in (*_words(), *_dates_and_times(_Digits(1)), *_uids(_Digits(2))):
        yield kind, value.encode()


def _words() -> Iterator[tuple[Kind, str]]:
    """Values that are lists of words, with as many empty ones as headers leave them empty."""
    lists = {
        Kind.PERSON: (PERSONS, 1),
        Kind.PATIENT_ID: (PATIENT_IDS, 1),
        Kind.SEX: ("|".join("F" * 20 + "M" * 20 + "O" * 5), 5),
        Kind.ACCESSION: (ACCESSIONS, 11),
        Kind.MODALITY: (MODALITIES, 0),
        Kind.INSTITUTION: (INSTITUTIONS, 19),
        Kind.PHYSICIAN: (PHYSICIANS, 35),
        Kind.DESCRIPTION: (DESCRIPTIONS, 4),
        Kind.BODY_PART: (BODY_PARTS, 4),
        Kind.AGE: (AGES, 2),
        Kind.NUMBER: (NUMBERS, 2),
        Kind.CHARSET: (CHARSETS, 0),
        Kind.NODE: (NODES, 0),
        Kind.SEGMENTER: (SEGMENTERS, 0),
        Kind.DEVICE: (DEVICES, 1),
    }
    for kind, (words, empty) in lists.items():
        for value in (*words.strip("\n").replace("\n", "|").split("|"), *[""] * empty):
            yield kind, value


def _dates_and_times(digits: _Digits) -> Iterator[tuple[Kind, str]]:
    for value in (*(digits.date(1925, 2010) for _ in range(40)), *[""] * 8):
        yield Kind.BIRTH_DATE, value
    for value in (*(digits.date(1995, 2026) for _ in range(60)), *[""] * 3):
        yield Kind.DATE, value
    fractions = [""] * 30 + [".000000"] * 8 + [".000"] * 5
    fractions += [f".{digits.digits(3)}000" for _ in range(5)] + [f".{digits.digits(2)}" for _ in range(4)]
    for fraction in fractions:
        yield Kind.TIME, digits.time() + fraction
    yield Kind.TIME, ""


def _uids(digits: _Digits) -> Iterator[tuple[Kind, str]]:
    """Each root with one of the usual kinds of ending."""
    for root in UID_ROOTS.strip("\n").replace("\n", "|").split("|"):
        endings = (
            f"{digits.digits(3)}.{digits.digits(4)}.{digits.digits(2)}",
            f"{digits.digits(6)}.{digits.digits(10)}",
            f"{digits.digits(10)}.{digits.digits(4)}.1",
            f"{digits.date(2000, 2026)}{digits.time()}.{digits.digits(4)}",
        )
        yield Kind.UID, root + endings[digits.below(4)]
    for value in SOP_CLASS_UIDS.strip("\n").replace("\n", "|").split("|"):
        yield Kind.UID, value


def content() -> bytes:
    """The dictionary file: (class u8, length u8, bytes) for each value."""
    return b"".join(bytes([kind, len(value)]) + value for kind, value in values())


def main(arguments: list[str]) -> None:
    """Write the dictionary to the file named, by default to where the engine reads it."""
    target = Path(arguments[0]) if arguments else TARGET
    target.write_bytes(content())


if __name__ == "__main__":
    main(sys.argv[1:])
