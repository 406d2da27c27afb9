#!/bin/sh
# Gives the service's roles their logins; PostgreSQL's image runs it on a new database, and it may be repeated.
# What each role may do, `guard db roles --apply` says after each migration.
set -eu
psql --quiet --no-psqlrc -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv worker WORKER_DB_PASSWORD
\getenv signer SIGNER_DB_PASSWORD
\getenv api API_DB_PASSWORD
\getenv notifier NOTIFIER_DB_PASSWORD
\getenv reader READER_DB_PASSWORD
SELECT format('CREATE ROLE %I', name)
  FROM unnest(ARRAY['guard_worker', 'guard_signer', 'guard_api', 'guard_notifier', 'guard_reader']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE guard_worker LOGIN PASSWORD :'worker';
ALTER ROLE guard_signer LOGIN PASSWORD :'signer';
ALTER ROLE guard_api LOGIN PASSWORD :'api';
ALTER ROLE guard_notifier LOGIN PASSWORD :'notifier';
ALTER ROLE guard_reader LOGIN PASSWORD :'reader';
SQL
