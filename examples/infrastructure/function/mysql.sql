-- Once, as the master user: what the function logs in as. `<password>` is the one in the app user's secret.
-- REQUIRE SSL is for the connection from the proxy; the proxy has its own setting for its clients.
CREATE USER app@'%' IDENTIFIED BY '<password>' REQUIRE SSL;
CREATE TABLE employee (id integer PRIMARY KEY, name varchar(100) NOT NULL);
GRANT SELECT ON shop.employee TO app@'%';
