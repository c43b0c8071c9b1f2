-- Which migrations were applied, and which instance owns the database. Created before the first migration.
CREATE TABLE IF NOT EXISTS pulse_migrations (
    version    bigint      PRIMARY KEY,
    name       text        NOT NULL,
    checksum   bytea       NOT NULL,
    additive   boolean     NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS pulse_database (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    instance text    NOT NULL
);
