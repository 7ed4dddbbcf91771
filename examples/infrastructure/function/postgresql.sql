-- Once, as the master user: what the function logs in as. `<password>` is the one in the app user's secret.
-- No `GRANT rds_iam`: behind a proxy with standard IAM it makes connections churn [RDS:rds-proxy-connecting].
CREATE ROLE app LOGIN PASSWORD '<password>';
-- Bounds what the client cannot: SET would pin the session, and the proxy takes no start-up option for it.
ALTER ROLE app SET idle_in_transaction_session_timeout = '30s';
CREATE TABLE employee (id integer PRIMARY KEY, name text NOT NULL);
GRANT SELECT ON employee TO app;
