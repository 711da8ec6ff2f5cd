CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance_id INTEGER NOT NULL REFERENCES instances (id),
    destination TEXT NOT NULL,
    priority INTEGER NOT NULL DEFAULT 0,
    queued_at REAL NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('queued', 'sending', 'delivered', 'dead')),
    next_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    lease_until REAL NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,
    status INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    UNIQUE (instance_id, destination)
);
INSERT INTO "deliveries" VALUES(1,6,'pacs',6,1000026.0,'delivered',1000026.0,1,1,2000030.0,1,0,'status-0000');
INSERT INTO "deliveries" VALUES(2,6,'vna',6,1000026.0,'queued',1000000.0,1,1,2000032.0,1,NULL,'no-answer');
INSERT INTO "deliveries" VALUES(3,7,'pacs',7,1000028.0,'dead',1000028.0,1,1,2000030.0,1,NULL,'status-c000');
INSERT INTO "deliveries" VALUES(4,7,'vna',7,1000028.0,'sending',1000028.0,1,1,2000032.0,1,NULL,'');
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    instance_id INTEGER NOT NULL REFERENCES instances (id),
    destination TEXT NOT NULL DEFAULT '',
    what TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT ''
);
INSERT INTO "events" VALUES(1,1000001.0,1,'','received','');
INSERT INTO "events" VALUES(2,1000003.0,2,'','received','');
INSERT INTO "events" VALUES(3,1000005.0,3,'','received','');
INSERT INTO "events" VALUES(4,1000007.0,4,'','received','');
INSERT INTO "events" VALUES(5,1000009.0,5,'','received','');
INSERT INTO "events" VALUES(6,1000011.0,6,'','received','');
INSERT INTO "events" VALUES(7,1000013.0,7,'','received','');
INSERT INTO "events" VALUES(8,1000015.0,8,'','received','');
INSERT INTO "events" VALUES(9,1000018.0,1,'','released','busy');
INSERT INTO "events" VALUES(10,1000019.0,3,'','held','because');
INSERT INTO "events" VALUES(11,1000021.0,4,'','quarantined','because');
INSERT INTO "events" VALUES(12,1000023.0,5,'','rejected','because');
INSERT INTO "events" VALUES(13,1000025.0,6,'','ready','');
INSERT INTO "events" VALUES(14,1000026.0,6,'pacs','queued','');
INSERT INTO "events" VALUES(15,1000026.0,6,'vna','queued','');
INSERT INTO "events" VALUES(16,1000027.0,7,'','ready','');
INSERT INTO "events" VALUES(17,1000028.0,7,'pacs','queued','');
INSERT INTO "events" VALUES(18,1000028.0,7,'vna','queued','');
INSERT INTO "events" VALUES(19,1000033.0,6,'pacs','delivered','status-0000');
INSERT INTO "events" VALUES(20,1000034.0,6,'vna','retry','no-answer');
INSERT INTO "events" VALUES(21,1000035.0,7,'pacs','dead','status-c000');
CREATE TABLE instances (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sop_class_uid TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    called_ae TEXT NOT NULL,
    route TEXT NOT NULL,
    blob TEXT NOT NULL,
    size INTEGER NOT NULL,
    received_at REAL NOT NULL,
    repeats INTEGER NOT NULL DEFAULT 0,
    conflict INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL
        CHECK (state IN ('received', 'working', 'ready', 'held', 'rejected', 'quarantined')),
    next_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    interrupted INTEGER NOT NULL DEFAULT 0,
    worker TEXT NOT NULL DEFAULT '',
    lease_until REAL NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,
    result TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    out_blob TEXT NOT NULL DEFAULT '',
    out_sop_class_uid TEXT NOT NULL DEFAULT '',
    out_sop_instance_uid TEXT NOT NULL DEFAULT '',
    out_transfer_syntax_uid TEXT NOT NULL DEFAULT '',
    UNIQUE (sop_instance_uid, blob, route)
);
INSERT INTO "instances" VALUES(1,'1.2.840.10008.5.1.4.1.1.2','1.1','1.2.840.10008.1.2.1','CT1','NODE','protect','0000000000000000000000000000000000000000000000000000000000000001',1001,1000000.0,1,0,'received',1000000.0,1,0,0,'w',2000017.0,1,'','busy','','','','');
INSERT INTO "instances" VALUES(2,'1.2.840.10008.5.1.4.1.1.2','1.2','1.2.840.10008.1.2.1','CT1','NODE','protect','0000000000000000000000000000000000000000000000000000000000000002',1002,1000002.0,0,0,'working',1000002.0,1,0,0,'w',2000017.0,1,'','','','','','');
INSERT INTO "instances" VALUES(3,'1.2.840.10008.5.1.4.1.1.2','1.3','1.2.840.10008.1.2.1','CT1','NODE','protect','0000000000000000000000000000000000000000000000000000000000000003',1003,1000004.0,0,0,'held',1000004.0,1,0,0,'w',2000017.0,1,'held','because','','','','');
INSERT INTO "instances" VALUES(4,'1.2.840.10008.5.1.4.1.1.2','1.4','1.2.840.10008.1.2.1','CT1','NODE','protect','0000000000000000000000000000000000000000000000000000000000000004',1004,1000006.0,0,0,'quarantined',1000006.0,1,0,0,'w',2000017.0,1,'quarantined','because','','','','');
INSERT INTO "instances" VALUES(5,'1.2.840.10008.5.1.4.1.1.2','1.5','1.2.840.10008.1.2.1','CT1','NODE','protect','0000000000000000000000000000000000000000000000000000000000000005',1005,1000008.0,0,0,'rejected',1000008.0,1,0,0,'w',2000017.0,1,'rejected','because','','','','');
INSERT INTO "instances" VALUES(6,'1.2.840.10008.5.1.4.1.1.2','1.6','1.2.840.10008.1.2.1','CT1','NODE','protect','0000000000000000000000000000000000000000000000000000000000000006',1006,1000010.0,0,0,'ready',1000010.0,1,0,0,'w',2000017.0,1,'protected','','00000000000000000000000000000000000000000000000000000000000003ee','1.2.840.10008.5.1.4.1.1.2','2.25.6','1.2.840.10008.1.2.1');
INSERT INTO "instances" VALUES(7,'1.2.840.10008.5.1.4.1.1.2','1.7','1.2.840.10008.1.2.1','CT1','NODE','protect','0000000000000000000000000000000000000000000000000000000000000007',1007,1000012.0,0,0,'ready',1000012.0,1,0,0,'w',2000017.0,1,'protected','','00000000000000000000000000000000000000000000000000000000000003ef','1.2.840.10008.5.1.4.1.1.2','2.25.7','1.2.840.10008.1.2.1');
INSERT INTO "instances" VALUES(8,'1.2.840.10008.5.1.4.1.1.2','1.1','1.2.840.10008.1.2.1','CT1','NODE','protect','0000000000000000000000000000000000000000000000000000000000000064',1100,1000014.0,0,1,'received',1000014.0,0,0,0,'',0.0,0,'','','','','','');
CREATE INDEX instances_waiting ON instances (next_at, id) WHERE state = 'received';
CREATE INDEX instances_leased ON instances (lease_until) WHERE state = 'working';
CREATE INDEX instances_tally ON instances (result, reason, state);
CREATE INDEX instances_age ON instances (received_at) WHERE state IN ('received', 'working');
CREATE INDEX instances_repeated ON instances (repeats) WHERE repeats > 0;
CREATE INDEX instances_conflicting ON instances (conflict) WHERE conflict > 0;
CREATE INDEX instances_lost ON instances (lost) WHERE lost > 0;
CREATE INDEX instances_blob ON instances (blob);
CREATE INDEX instances_out_blob ON instances (out_blob) WHERE out_blob <> '';
CREATE INDEX instances_sent_as ON instances (out_sop_instance_uid) WHERE out_sop_instance_uid <> '';
CREATE INDEX deliveries_waiting ON deliveries (destination, priority DESC, next_at, id) WHERE state = 'queued';
CREATE INDEX deliveries_leased ON deliveries (destination, lease_until) WHERE state = 'sending';
CREATE INDEX deliveries_tally ON deliveries (destination, state, tries);
CREATE INDEX deliveries_age ON deliveries (destination, queued_at) WHERE state IN ('queued', 'sending');
CREATE INDEX events_of_instance ON events (instance_id, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('instances',8);
INSERT INTO "sqlite_sequence" VALUES('events',21);
INSERT INTO "sqlite_sequence" VALUES('deliveries',4);
PRAGMA user_version = 1;
