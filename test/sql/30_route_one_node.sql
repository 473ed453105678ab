-- Routing on a cluster of one node: everything is here, nothing is refused.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DO $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'payshard') THEN
		CREATE EXTENSION payshard;
	END IF;
	IF NOT EXISTS (SELECT FROM payshard.node_self) THEN
		PERFORM payshard.create_cluster('pay', shards => 4, replicas => 1);
	END IF;
	-- until the keeper has taken an incarnation
	FOR i IN 1..100 LOOP
		BEGIN
			CREATE TABLE route_wait (k int PRIMARY KEY);
			PERFORM payshard.create_distributed_table('route_wait', 'k');
			EXIT;
		EXCEPTION WHEN cannot_connect_now THEN
			PERFORM pg_sleep(0.1);
		END;
	END LOOP;
END $$;
DROP TABLE public.route_wait;
CREATE SCHEMA route;
SET search_path = route, public;
CREATE TABLE account (id bigint PRIMARY KEY, name text, balance numeric NOT NULL DEFAULT 0);
SELECT payshard.create_distributed_table('account', 'id');
CREATE TABLE payment (account_id bigint REFERENCES account, id int, amount numeric, PRIMARY KEY (account_id, id));
SELECT payshard.create_distributed_table('payment', 'account_id');
CREATE TABLE ordinary (k bigint);
INSERT INTO ordinary SELECT generate_series(1, 5);

-- all primaries are here: keys do not matter
INSERT INTO account (id, name) SELECT k, 'a' || k FROM ordinary;
INSERT INTO payment VALUES (1, 1, 10), (2, 1, 20), (3, 1, 30);
UPDATE account SET balance = balance + 1;
UPDATE account a SET balance = balance + p.amount FROM payment p WHERE p.account_id = a.id;
UPDATE account SET id = 6 WHERE id = 5;
SELECT * FROM account ORDER BY id FOR UPDATE;
DELETE FROM account WHERE id > 5 RETURNING id;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM account;
COMMIT;

-- a known key is planned on its partition, by PostgreSQL itself
EXPLAIN (COSTS OFF) SELECT name FROM account WHERE id = 3;
EXPLAIN (COSTS OFF) UPDATE account SET name = 'x' WHERE id = 3;
PREPARE get (bigint) AS SELECT name FROM account WHERE id = $1;
EXECUTE get (1);
SET plan_cache_mode = force_generic_plan;
EXECUTE get (2);
EXECUTE get (NULL);
RESET plan_cache_mode;
CREATE FUNCTION name_of(k bigint) RETURNS text LANGUAGE sql STABLE AS 'SELECT name FROM route.account WHERE id = k';
SELECT name_of(3), name_of(4), name_of(99);
SELECT a.name, p.amount FROM account a JOIN payment p ON p.account_id = a.id WHERE a.id = 2;
SELECT sum(amount) FROM payment JOIN ordinary ON k = account_id;
COPY payment TO STDOUT (DELIMITER ',');
COPY account (id, name) FROM STDIN (DELIMITER ',');
10,ten
11,eleven
\.
SELECT name FROM account WHERE id IN (10, 11) ORDER BY 1;
BEGIN;
INSERT INTO account VALUES (12, 'twelve');
SAVEPOINT s;
INSERT INTO account VALUES (12, 'again');
ROLLBACK TO s;
SELECT name FROM account WHERE id = 12;
COMMIT;

-- between nodes only, and in their epoch only
\set VERBOSITY sqlstate
SELECT payshard.local_scope(-1);
\set VERBOSITY default
DROP FUNCTION name_of;
DROP TABLE payment;
DROP TABLE account;
DROP TABLE ordinary;
DROP SCHEMA route;
