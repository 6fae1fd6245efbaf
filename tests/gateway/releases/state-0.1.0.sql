-- The state of release 0.1.0, as that release made it.
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
-- INSERT INTO "_sqlite_migrations" VALUES(1,'authority','_0001_certificates','2026-11-21 20:18:49.523930+00:00');
-- INSERT INTO "_sqlite_migrations" VALUES(2,'registry','_0001_devices','2026-11-21 20:18:49.528983+00:00');
-- INSERT INTO "_sqlite_migrations" VALUES(3,'identity','_0001_tokens','2026-11-21 20:18:49.530583+00:00');
-- INSERT INTO "_sqlite_migrations" VALUES(4,'identity','_0002_users','2026-11-21 20:18:49.540366+00:00');
-- INSERT INTO "_sqlite_migrations" VALUES(5,'identity','_0003_certificates','2026-11-21 20:18:49.547442+00:00');
-- INSERT INTO "_sqlite_migrations" VALUES(6,'idempotency','_0001_answers','2026-11-21 20:18:49.564079+00:00');
-- INSERT INTO "_sqlite_migrations" VALUES(7,'commands','_0001_commands','2026-11-21 20:18:49.573865+00:00');
-- INSERT INTO "_sqlite_migrations" VALUES(8,'shadow','_0001_shadow','2026-11-21 20:18:49.603832+00:00');
-- INSERT INTO "_sqlite_migrations" VALUES(9,'revisions','_0001_revisions','2026-11-21 20:18:49.620089+00:00');
-- INSERT INTO "_sqlite_migrations" VALUES(10,'repairs','_0001_put_off','2026-11-21 20:18:49.639749+00:00');
CREATE TABLE "certificate" (
   "serial" TEXT PRIMARY KEY NOT NULL,
   "fingerprint" TEXT NOT NULL,
   "purpose" TEXT NOT NULL,
   "name" TEXT NOT NULL,
   "role" TEXT NOT NULL,
   "tenant" TEXT NOT NULL,
   "made_by" TEXT NOT NULL,
   "reason" TEXT NOT NULL,
   "pem" TEXT NOT NULL,
   "not_before_ns" INTEGER NOT NULL,
   "not_after_ns" INTEGER NOT NULL,
   "made_ns" INTEGER NOT NULL,
   "revoked_ns" INTEGER NOT NULL
);
CREATE TABLE "certificate_principal" (
   "fingerprint" TEXT PRIMARY KEY,
   "name" TEXT NOT NULL,
   "role" TEXT NOT NULL,
   "tenant" TEXT NOT NULL,
   "expires_ns" INTEGER NOT NULL,
   "made_by" TEXT NOT NULL,
   "made_ns" INTEGER NOT NULL,
   "revoked_ns" INTEGER NOT NULL
);
CREATE TABLE "command" (
   "number" INTEGER PRIMARY KEY,
   "id" TEXT NOT NULL,
   "body" BLOB NOT NULL
);
CREATE TABLE "device" (
   "name" TEXT PRIMARY KEY NOT NULL,
   "kind" TEXT NOT NULL,
   "state" TEXT NOT NULL,
   "since_ns" INTEGER NOT NULL,
   "reason" TEXT NOT NULL,
   "by" TEXT NOT NULL,
   "made_ns" INTEGER NOT NULL,
   "wiped_ns" INTEGER NOT NULL
);
CREATE TABLE "device_enrolment" (
   "digest" TEXT PRIMARY KEY NOT NULL,
   "device" TEXT NOT NULL,
   "expires_ns" INTEGER NOT NULL
);
CREATE TABLE "device_step" (
   "id" INTEGER PRIMARY KEY NOT NULL,
   "device" TEXT NOT NULL,
   "before" TEXT NOT NULL,
   "after" TEXT NOT NULL,
   "time_ns" INTEGER NOT NULL,
   "by" TEXT NOT NULL,
   "reason" TEXT NOT NULL
);
CREATE TABLE "device_token" (
   "id" TEXT PRIMARY KEY NOT NULL,
   "device" TEXT NOT NULL,
   "made_ns" INTEGER NOT NULL,
   "made_by" TEXT NOT NULL,
   "expires_ns" INTEGER NOT NULL,
   "revoked_ns" INTEGER NOT NULL
);
CREATE TABLE "idempotency" (
   "id" TEXT PRIMARY KEY,
   "print" TEXT NOT NULL,
   "begun_ns" INTEGER NOT NULL,
   "status" INTEGER NOT NULL,
   "headers" TEXT,
   "body" BLOB,
   "bytes" INTEGER NOT NULL
);
CREATE TABLE "lock_out" (
   "id" TEXT PRIMARY KEY,
   "body" BLOB NOT NULL
);
CREATE TABLE "put_off" (
   "fault" TEXT PRIMARY KEY,
   "told" TEXT NOT NULL
);
CREATE TABLE "revision" (
   "number" INTEGER PRIMARY KEY,
   "head" TEXT NOT NULL,
   "changes" TEXT,
   "more" INTEGER,
   "text_diff" TEXT,
   "document" BLOB NOT NULL,
   "packed_bytes" INTEGER NOT NULL
);
CREATE TABLE "revision_now" (
   "id" INTEGER PRIMARY KEY,
   "confirmed" INTEGER NOT NULL,
   "before" INTEGER NOT NULL,
   "trial" INTEGER NOT NULL,
   "deadline" TEXT,
   "file" TEXT NOT NULL
);
-- INSERT INTO "revision_now" VALUES(1,0,0,0,NULL,'');
CREATE TABLE "shadow" (
   "device" TEXT PRIMARY KEY,
   "version" INTEGER NOT NULL,
   "reported" TEXT NOT NULL
);
CREATE TABLE "token" (
   "id" TEXT PRIMARY KEY,
   "digest" TEXT NOT NULL,
   "role" TEXT NOT NULL,
   "tenant" TEXT NOT NULL,
   "scopes" TEXT,
   "expires_ns" INTEGER NOT NULL,
   "made_by" TEXT NOT NULL,
   "made_ns" INTEGER NOT NULL
, "owner" TEXT NOT NULL DEFAULT '', "used_ns" INTEGER NOT NULL DEFAULT 0);
CREATE TABLE "user" (
   "name" TEXT PRIMARY KEY,
   "digest" TEXT NOT NULL,
   "role" TEXT NOT NULL,
   "tenant" TEXT NOT NULL,
   "disabled" INTEGER NOT NULL,
   "made_by" TEXT NOT NULL,
   "made_ns" INTEGER NOT NULL,
   "password_ns" INTEGER NOT NULL
);
CREATE TABLE "wish" (
   "device" TEXT,
   "tag" TEXT,
   "version" INTEGER NOT NULL,
   "wish" TEXT NOT NULL,
   PRIMARY KEY ("device", "tag")
);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX "idx_certificate_purpose_name"
    ON "certificate" ("purpose", "name");
CREATE INDEX "idx_device_step_device"
    ON "device_step" ("device");
CREATE UNIQUE INDEX "idx_token_digest"
    ON "token" ("digest");
CREATE INDEX "idx_idempotency_begun_ns"
    ON "idempotency" ("begun_ns");
CREATE UNIQUE INDEX "idx_command_id"
    ON "command" ("id");
