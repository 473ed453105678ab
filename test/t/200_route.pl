# A statement gives the same answer from every node, and as on plain tables (R1 to R3).
#
# Three data nodes.  The same tables stand in two schemas, once distributed and
# once plain.  A list of statements runs in one session with search_path set to
# the one and to the other, from every node; answers, row counts and SQLSTATEs
# must be equal.  Then what is only there in a cluster: what is refused and by
# which SQLSTATE, errors and cancels of shipped statements, prepared statements
# and generic plans, and that partitions are never read where they are not held.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IPC::Run qw(run);
use PayshardCluster;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, replicas => 2, shards => 16);

my $tables = q{
	CREATE TABLE account (id bigint PRIMARY KEY, name text, balance numeric NOT NULL DEFAULT 0, made date DEFAULT '2026-01-01', doubled numeric GENERATED ALWAYS AS (balance * 2) STORED);
	%s
	CREATE TABLE payment (account_id bigint REFERENCES account, id bigint, amount numeric(12,2), note text DEFAULT 'none', tags text[], doc jsonb, PRIMARY KEY (account_id, id));
	%s
	CREATE TABLE pair (a int, b text, v int, PRIMARY KEY (a, b));
	%s
};
my $d = 'SELECT payshard.create_distributed_table';
$c->sql(1, 'CREATE SCHEMA dist; CREATE SCHEMA plain;');
$c->sql($_, q{CREATE SCHEMA IF NOT EXISTS dist; CREATE SCHEMA IF NOT EXISTS plain;
	CREATE TYPE public.mood AS ENUM ('sad', 'glad');
	CREATE FUNCTION public.twice(n numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';}) foreach 1 .. 3;
$c->sql(1, 'SET search_path = dist, public;' . sprintf($tables, "$d('account', 'id');", "$d('payment', 'account_id');", ''));
$c->sql(1, 'SET search_path = dist, public; CREATE TABLE feeling (id uuid PRIMARY KEY, m public.mood, ms public.mood[]);' . "$d('feeling', 'id')");
foreach my $i (1 .. 3)
{
	$c->sql($i, 'SET search_path = plain, public;' . sprintf($tables, '', '', '')
		. 'CREATE TABLE feeling (id uuid PRIMARY KEY, m public.mood, ms public.mood[]);');
}

# Statements; each is run alone in one session.
my @statements = split /\n/, <<'SQL';
INSERT INTO account (id, name) VALUES (1, 'one');
INSERT INTO account (id, name) VALUES (2, 'two') RETURNING *;
INSERT INTO account VALUES (3, 'three', 30, '2026-02-02');
INSERT INTO account (name, id) VALUES ('four', 4) RETURNING id, name, made, doubled;
INSERT INTO account (balance, name, id) SELECT 5.5, 'five', 5 RETURNING id, name, balance;
INSERT INTO account (id, name) SELECT 6, 'six' WHERE false;
INSERT INTO account (id, name) VALUES (6, 'six'), (6, 'six again') ON CONFLICT DO NOTHING RETURNING name;
INSERT INTO account (name, balance, id) VALUES ('seven', 7, 7), ('seven b', 8, 7) ON CONFLICT (id) DO NOTHING;
INSERT INTO account (id, name) VALUES (2, 'again');
INSERT INTO account (id, name, balance) VALUES (2, 'again', 1) ON CONFLICT (id) DO UPDATE SET name = excluded.name || '+' || account.name, balance = account.balance + excluded.balance RETURNING *;
INSERT INTO account (id, name) VALUES (2, 'x') ON CONFLICT (id) DO UPDATE SET (balance, name) = (SELECT 17, 'multi') WHERE account.balance < 5 RETURNING id, name, balance;
INSERT INTO account (id, name) VALUES (NULL, 'x');
INSERT INTO account (id, balance) VALUES (8, NULL);
INSERT INTO account (id, doubled) VALUES (8, 1);
SELECT * FROM account ORDER BY id;
SELECT count(*), sum(balance), avg(balance), min(name), max(made) FROM account;
SELECT name FROM account WHERE id = 3;
SELECT name FROM account WHERE 3 = id AND balance > 1;
SELECT name FROM account WHERE id = 3::int;
SELECT name FROM account WHERE id = 3::smallint;
SELECT name FROM account WHERE id = '3';
SELECT name FROM account WHERE id = 3.0;
SELECT name FROM account WHERE id = NULL;
SELECT name FROM account WHERE id = 1 AND id = 2;
SELECT name FROM account WHERE id IN (1, 2, 3) ORDER BY 1;
SELECT name FROM account WHERE id = 1 OR id = 5 ORDER BY 1;
SELECT name FROM account WHERE id = ANY ('{2,4,77}'::bigint[]) ORDER BY id;
SELECT name FROM account WHERE id NOT IN (1, 2) ORDER BY 1;
SELECT name FROM account WHERE id BETWEEN 2 AND 4 ORDER BY id DESC;
SELECT name FROM account WHERE id = (SELECT 4);
SELECT name FROM account WHERE id = 2 AND made <= now();
SELECT name FROM account WHERE id = length('ab');
SELECT name FROM account WHERE id = 2 AND name LIKE '%o' LIMIT 1 OFFSET 0;
UPDATE account SET balance = balance + 10 WHERE id = 1;
UPDATE account SET balance = balance + 10 WHERE id = 2 RETURNING id, balance, doubled;
UPDATE account SET (name, balance) = (SELECT 'subselect', 3) WHERE id = 3 RETURNING *;
UPDATE account SET (balance, name) = (SELECT 4, 'swapped') WHERE id = 4 RETURNING *;
UPDATE account SET balance = DEFAULT, made = DEFAULT WHERE id = 4 RETURNING *;
UPDATE account SET balance = twice(balance) WHERE id = 3 RETURNING balance;
UPDATE account SET name = 'nobody' WHERE id = 999;
INSERT INTO payment (account_id, id, amount) VALUES (1, 1, 10), (1, 2, 20), (1, 3, 30);
INSERT INTO payment (account_id, id, amount, tags, doc) VALUES (2, 1, 1.5, '{a,"b c",NULL}', '{"k": [1, 2, {"x": null}]}') RETURNING *;
INSERT INTO payment (id, account_id, note, amount) VALUES (2, 2, DEFAULT, 3), (3, 2, 'written', 4) RETURNING note, amount;
INSERT INTO payment (account_id, id, amount) VALUES (3, 1, 7);
INSERT INTO payment (account_id, id, amount) VALUES (888, 1, 7);
INSERT INTO payment (note, account_id, id, amount) SELECT 'from series', 4, g, g * 1.25 FROM generate_series(1, 5) g;
INSERT INTO payment (account_id, id) SELECT id, 100 FROM account WHERE id = 2 RETURNING *;
WITH a AS (SELECT id FROM account WHERE id = 3) INSERT INTO payment (account_id, id, amount) SELECT id, 50, 1 FROM a RETURNING account_id, amount;
WITH u AS (UPDATE account SET balance = balance - 1 WHERE id = 2 RETURNING id, balance) INSERT INTO payment (account_id, id, amount) SELECT id, 60, balance FROM u RETURNING account_id, id, amount;
WITH i AS (INSERT INTO account (id, name) VALUES (9, 'nine') RETURNING id) INSERT INTO payment (account_id, id, amount) SELECT id, 1, 9 FROM i RETURNING *;
WITH d AS (DELETE FROM payment WHERE account_id = 4 AND id > 3 RETURNING *) SELECT count(*), sum(amount) FROM d;
SELECT a.name, p.amount FROM account a JOIN payment p ON p.account_id = a.id WHERE a.id = 1 ORDER BY p.id;
SELECT a.name, p.amount FROM account a JOIN payment p ON p.account_id = a.id WHERE p.account_id = 2 ORDER BY p.id;
SELECT a.name, p.amount FROM account a, payment p WHERE p.account_id = a.id AND a.id = 2 AND p.id = 1;
SELECT a.name, p.amount FROM account a LEFT JOIN payment p ON p.account_id = a.id AND p.amount > 15 WHERE a.id = 1 ORDER BY 2;
SELECT a.name, p.amount FROM account a LEFT JOIN payment p ON p.account_id = a.id WHERE a.id = 5;
SELECT a.name, p.amount FROM account a LEFT JOIN payment p ON p.account_id = a.id AND a.id = 2 ORDER BY a.id, p.id;
SELECT a.name, p.amount FROM payment p RIGHT JOIN account a ON p.account_id = a.id WHERE a.id = 2 ORDER BY 2;
SELECT a.name, b.name FROM account a FULL JOIN account b ON a.id = b.id + 1 AND a.id = 2 ORDER BY a.id, b.id;
SELECT a.id, b.id FROM account a FULL JOIN account b USING (id) WHERE a.id = 3;
SELECT id, p.amount FROM account JOIN payment p USING (id) WHERE id = 1 AND account_id = 1;
SELECT name, (SELECT sum(amount) FROM payment p WHERE p.account_id = a.id) FROM account a WHERE id = 2;
SELECT name, (SELECT sum(amount) FROM payment p WHERE p.account_id = a.id) FROM account a ORDER BY id;
SELECT name FROM account a WHERE id = 2 AND EXISTS (SELECT FROM payment p WHERE p.account_id = a.id AND amount > 3);
SELECT name FROM account a WHERE NOT EXISTS (SELECT FROM payment p WHERE p.account_id = a.id) ORDER BY id;
SELECT name FROM account a WHERE id IN (SELECT account_id FROM payment WHERE amount > 8) ORDER BY id;
SELECT * FROM (SELECT account_id, sum(amount) AS s FROM payment GROUP BY account_id) x WHERE account_id = 1;
SELECT * FROM (SELECT account_id, sum(amount) AS s FROM payment GROUP BY account_id) x ORDER BY 1;
SELECT * FROM (SELECT id FROM account ORDER BY id LIMIT 2) x WHERE id = 2;
SELECT * FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM account) x WHERE id = 3;
SELECT id FROM account WHERE id = 1 UNION ALL SELECT account_id FROM payment WHERE account_id = 2 ORDER BY 1;
SELECT id FROM account UNION SELECT account_id FROM payment ORDER BY 1;
SELECT id FROM account EXCEPT SELECT account_id FROM payment ORDER BY 1;
WITH x AS (SELECT * FROM account WHERE id = 2) SELECT x.name, p.amount FROM x JOIN payment p ON p.account_id = x.id ORDER BY p.id;
WITH RECURSIVE r (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT name FROM account JOIN r ON id = n ORDER BY 1;
SELECT a.id, l.amount FROM account a, LATERAL (SELECT amount FROM payment p WHERE p.account_id = a.id ORDER BY amount DESC LIMIT 1) l ORDER BY 1;
SELECT a.id, l.amount FROM account a, LATERAL (SELECT amount FROM payment p WHERE p.account_id = a.id ORDER BY amount DESC LIMIT 1) l WHERE a.id = 2;
SELECT note, count(*) FROM payment GROUP BY note HAVING count(*) > 1 ORDER BY 1;
SELECT DISTINCT note FROM payment ORDER BY 1;
SELECT made, GROUPING(made), sum(balance) FROM account GROUP BY ROLLUP (made) ORDER BY 1, 2;
SELECT account FROM account WHERE id = 2;
SELECT account FROM account ORDER BY id LIMIT 3;
SELECT (account).name FROM account WHERE id = 3;
SELECT count(*) FROM account WHERE name ~ 'e' AND id % 2 = 1;
SELECT array_agg(name ORDER BY id) FROM account WHERE id IN (SELECT 1 UNION SELECT 3);
SELECT doc -> 'k' ->> 0, tags[2], tags FROM payment WHERE account_id = 2 AND id = 1;
SELECT id, name FROM account WHERE id = 2 FOR UPDATE;
SELECT a.id FROM account a JOIN payment p ON p.account_id = a.id WHERE a.id = 2 AND p.id = 1 FOR SHARE OF a;
SELECT current_user = (SELECT current_user FROM account WHERE id = 2), now() = (SELECT now() FROM account WHERE id = 3);
SELECT current_setting('search_path') LIKE '%pub%' FROM account WHERE id = 2;
BEGIN;
UPDATE account SET balance = 100 WHERE id = 2;
SELECT balance FROM account WHERE id = 2;
SAVEPOINT a;
UPDATE account SET balance = 200 WHERE id = 2;
SAVEPOINT b;
UPDATE account SET balance = 1 / (balance - 200) WHERE id = 2;
SELECT 1;
ROLLBACK TO b;
SELECT balance FROM account WHERE id = 2;
SELECT sum(balance) FROM account;
RELEASE b;
ROLLBACK TO a;
SELECT balance FROM account WHERE id = 2;
INSERT INTO payment (account_id, id, amount) VALUES (2, 200, 2);
COMMIT;
SELECT balance FROM account WHERE id = 2;
SELECT amount FROM payment WHERE account_id = 2 AND id = 200;
BEGIN;
DELETE FROM payment WHERE account_id = 2;
DELETE FROM account WHERE id = 2;
SELECT count(*) FROM account;
ROLLBACK;
SELECT count(*) FROM account;
DELETE FROM account WHERE id = 2;
DELETE FROM payment WHERE account_id = 2 AND id = 200 RETURNING *;
PREPARE get (bigint) AS SELECT id, name FROM account WHERE id = $1;
EXECUTE get (1);
EXECUTE get (2);
EXECUTE get (3);
EXECUTE get (4);
EXECUTE get (5);
EXECUTE get (1);
EXECUTE get (2);
EXECUTE get (3);
EXECUTE get (NULL);
PREPARE put (bigint, numeric) AS UPDATE account SET balance = balance + $2 WHERE id = $1 RETURNING balance;
EXECUTE put (1, 0.5);
EXECUTE put (2, 0.5);
EXECUTE put (3, 0.5);
SET plan_cache_mode = force_generic_plan;
EXECUTE get (1);
EXECUTE get (2);
EXECUTE get (3);
EXECUTE put (1, 0.25);
EXECUTE put (2, 0.25);
EXECUTE put (3, 0.25);
PREPARE several (bigint[]) AS SELECT id FROM account WHERE id = ANY ($1) ORDER BY 1;
EXECUTE several ('{1,2,3}');
EXECUTE several ('{2}');
EXECUTE several ('{}');
PREPARE ins (bigint, text) AS INSERT INTO account (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET name = $2 RETURNING id, name;
EXECUTE ins (20, 'twenty');
EXECUTE ins (21, 'twenty-one');
EXECUTE ins (21, 'once more');
RESET plan_cache_mode;
EXECUTE ins (22, 'twenty-two');
EXECUTE ins (23, 'twenty-three');
SELECT id, name FROM account WHERE id >= 20 ORDER BY 1;
INSERT INTO account (id, name) VALUES (floor(random())::int + 30, 'random') RETURNING id, name;
CREATE FUNCTION pg_temp.name_of(k bigint) RETURNS text LANGUAGE sql STABLE AS 'SELECT name FROM account WHERE id = k';
SELECT pg_temp.name_of(1), pg_temp.name_of(2), pg_temp.name_of(3);
SELECT pg_temp.name_of(id) FROM account ORDER BY id LIMIT 5;
CREATE FUNCTION pg_temp.rows_of(k bigint) RETURNS SETOF payment LANGUAGE sql STABLE AS 'SELECT * FROM payment WHERE account_id = k';
SELECT id, amount FROM pg_temp.rows_of(1) ORDER BY id;
SELECT id, amount FROM pg_temp.rows_of(3) ORDER BY id;
CREATE FUNCTION pg_temp.pay(k bigint, n bigint, a numeric) RETURNS numeric LANGUAGE plpgsql AS $$ DECLARE b numeric; BEGIN INSERT INTO payment (account_id, id, amount) VALUES (k, n, a); UPDATE account SET balance = balance - a WHERE id = k RETURNING balance INTO b; RETURN b; EXCEPTION WHEN unique_violation THEN RETURN -1; END $$;
SELECT pg_temp.pay(1, 300, 1);
SELECT pg_temp.pay(2, 300, 1);
SELECT pg_temp.pay(3, 300, 1);
SELECT pg_temp.pay(2, 300, 1);
SELECT pg_temp.pay(777, 300, 1);
DO $$ DECLARE r record; n numeric := 0; BEGIN FOR i IN 1 .. 9 LOOP SELECT * INTO r FROM account WHERE id = i; n := n + coalesce(r.balance, 0); END LOOP; RAISE NOTICE '%', n; END $$;
DO $$ DECLARE r record; n int := 0; BEGIN FOR r IN SELECT * FROM payment WHERE account_id = 2 ORDER BY id LOOP n := n + r.id; END LOOP; RAISE NOTICE '%', n; END $$;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM account ORDER BY id;
FETCH 3 FROM c;
FETCH BACKWARD 1 FROM c;
DECLARE d SCROLL CURSOR FOR SELECT id FROM payment WHERE account_id = 2 ORDER BY id;
FETCH 2 FROM d;
FETCH FIRST FROM d;
FETCH LAST FROM c;
COMMIT;
CREATE TEMPORARY TABLE mine (k bigint, w text);
INSERT INTO mine SELECT id, name FROM account WHERE id < 4;
INSERT INTO mine SELECT account_id, note FROM payment WHERE account_id = 2;
SELECT k, count(*) FROM mine GROUP BY 1 ORDER BY 1;
SELECT a.name, m.w FROM account a JOIN mine m ON m.k = a.id ORDER BY 1, 2;
SELECT a.name FROM account a JOIN mine m ON m.k = a.id WHERE a.id = 3;
WITH x AS MATERIALIZED (SELECT id, balance FROM account) UPDATE mine SET w = x.balance::text FROM x WHERE x.id = k;
CREATE TEMPORARY TABLE copied AS SELECT * FROM payment;
SELECT count(*), sum(amount) FROM copied;
CREATE TEMPORARY VIEW rich AS SELECT id, name, balance FROM account WHERE balance > 3;
SELECT * FROM rich ORDER BY id;
SELECT name FROM rich WHERE id = 2;
UPDATE rich SET name = 'by view' WHERE id = 2 RETURNING *;
COPY (SELECT id, name FROM account ORDER BY id) TO STDOUT;
INSERT INTO feeling VALUES ('00000000-0000-0000-0000-000000000001', 'sad', '{glad,sad}') RETURNING *;
INSERT INTO feeling VALUES ('00000000-0000-0000-0000-000000000002', 'glad', NULL) RETURNING *;
INSERT INTO feeling VALUES ('00000000-0000-0000-0000-000000000003', 'glad', NULL) RETURNING m;
PREPARE feel (uuid, mood) AS SELECT id, m, ms FROM feeling WHERE id = $1 AND m = $2;
EXECUTE feel ('00000000-0000-0000-0000-000000000001', 'sad');
EXECUTE feel ('00000000-0000-0000-0000-000000000002', 'glad');
EXECUTE feel ('00000000-0000-0000-0000-000000000003', 'glad');
SELECT * FROM feeling WHERE m = 'glad' ORDER BY id;
SELECT f FROM feeling f ORDER BY id;
SELECT id, name, balance FROM account ORDER BY id;
SELECT account_id, id, amount, note FROM payment ORDER BY 1, 2;
SQL

my $script = join('', map { "\\echo -- $_\n" =~ s/'/''/gr . "$_\n" } @statements);
$script = join '', map { my $n = $_; "\\echo === $n\n$statements[$n]\n" } 0 .. $#statements;

# Answers of one session, one per statement.
sub answers
{
	my ($i, $schema) = @_;
	my $out = '';
	run [ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $c->node($i)->connstr('postgres') ],
	  '<', \"SET search_path = $schema, public;\n\\unset ON_ERROR_STOP\n\\set QUIET off\n$script", '&>', \$out;
	$out =~ s/^SET\n//;
	$out =~ s/^psql:<stdin>:\d+: //mg;
	return map { s/^\d+\n//r } split /^=== /m, $out;
}

foreach my $i (1 .. 3)
{
	my @plain = answers($i, 'plain');
	my @dist = answers($i, 'dist');
	my @differ = grep { ($plain[ $_ + 1 ] // '') ne ($dist[ $_ + 1 ] // '') } 0 .. $#statements;

	is(scalar(@dist), @statements + 1, "the session at node $i answers all " . @statements . ' statements');
	is(scalar(@differ), 0, "node $i answers like plain tables");
	diag("node $i: $statements[$_]\nplain: $plain[$_ + 1]\ndist:  " . ($dist[ $_ + 1 ] // '')) foreach @differ > 8 ? @differ[ 0 .. 7 ] : @differ;
	foreach my $j (1 .. 3)
	{
		is($c->sql($j, 'SELECT count(*), sum(balance), max(name) FROM dist.account'), $c->sql($i, 'SELECT count(*), sum(balance), max(name) FROM plain.account'),
			"node $j sees what was written at node $i");
	}
	$c->sql(1, 'DELETE FROM dist.payment WHERE account_id = ' . $_) foreach split /\n/, $c->sql(1, 'SELECT DISTINCT account_id FROM dist.payment');
	$c->sql(1, 'DELETE FROM dist.account WHERE id = ' . $_) foreach split /\n/, $c->sql(1, 'SELECT id FROM dist.account');
	$c->sql(1, "DELETE FROM dist.feeling WHERE id = '$_'") foreach split /\n/, $c->sql(1, 'SELECT id FROM dist.feeling');
}

# ------------------------------------------------ keys of each primary

my @key;						# a key whose primary is node i
foreach my $line (split /\n/, $c->sql(1, q{SELECT s.primary_node, min(k) FROM generate_series(1, 300) k, payshard.shards s
	WHERE s.shard = payshard.shard_for('dist.account', k::text) GROUP BY 1}))
{
	my ($node, $k) = $line =~ /^n(\d+)\|(\d+)$/;
	$key[$node] = $k;
}
my @second = (0, map { $c->sql(1, "SELECT min(k) FROM generate_series(1, 300) k, payshard.shards s WHERE s.shard = payshard.shard_for('dist.account', k::text) AND primary_node = 'n$_' AND k <> $key[$_]") } 1 .. 3);
$c->sql($_, "INSERT INTO dist.account (id, name) VALUES ($key[$_], 'at n$_'), ($second[$_], 'also at n$_')") foreach 1 .. 3;

# refused(node, statements, SQLSTATE, name): an error, and nothing is left of it
sub refused
{
	my ($i, $sql, $state, $name) = @_;
	my $before = $c->sql(1, 'SELECT md5(string_agg(a::text, $$,$$ ORDER BY id)) FROM dist.account a');
	my ($status, $out, $err) = $c->try_sql($i, $sql);

	like($err, qr/ERROR:  $state: /, "$name: $state") or diag($sql);
	is($c->sql(1, 'SELECT md5(string_agg(a::text, $$,$$ ORDER BY id)) FROM dist.account a'), $before, "$name: nothing is done");
	return $err;
}

my ($k1, $k2, $k3) = @key[ 1 .. 3 ];
my $err = refused(1, "BEGIN; UPDATE dist.account SET balance = 1 WHERE id = $k2; UPDATE dist.account SET balance = 1 WHERE id = $k3; COMMIT", '0A000', 'two remote primaries');
like($err, qr/HINT: /, 'with a hint');
refused(1, "BEGIN; UPDATE dist.account SET balance = 1 WHERE id = $k1; UPDATE dist.account SET balance = 1 WHERE id = $k3; COMMIT", '0A000', 'here, then elsewhere');
refused(1, "BEGIN; UPDATE dist.account SET balance = 1 WHERE id = $k3; UPDATE dist.account SET balance = 1 WHERE id = $k1; COMMIT", '0A000', 'elsewhere, then here');
refused(1, "BEGIN; UPDATE dist.account SET balance = 1 WHERE id = $k3; CREATE TABLE plain.x (a int); COMMIT", '0A000', 'elsewhere, and an ordinary table');
refused(1, "INSERT INTO dist.account (id, balance) VALUES ($k1 + 1000, 1), ($k2 + 1001, 2), ($k3 + 1002, 3), (1500, 1), (1501, 1), (1502, 1)", '0A000', 'rows of several primaries');
refused($_, 'UPDATE dist.account SET balance = balance + 1', '0A000', "UPDATE of all from node $_") foreach 1 .. 3;
refused($_, 'DELETE FROM dist.account', '0A000', "DELETE of all from node $_") foreach 1 .. 3;
refused(2, "INSERT INTO dist.account (id, name) VALUES ((SELECT $k1 + 0), 'subselect')", '0A000', 'a key from a subquery');
refused(2, 'SELECT * FROM dist.account FOR UPDATE', '0A000', 'locking rows of several primaries');
refused(2, "UPDATE dist.account SET id = id + 1 WHERE id = $k1", '0A000', 'assigning the key');
refused(2, "INSERT INTO dist.account (id, name) SELECT id + 5000, name FROM dist.account", '0A000', 'INSERT .. SELECT over all');
refused(1, "INSERT INTO dist.account (id, name) SELECT $k2 + 0, relname FROM pg_class", '0A000', 'a write elsewhere that reads ordinary tables');
refused(1, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT * FROM dist.account WHERE id = $k2", '0A000', 'SERIALIZABLE');
refused(1, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM dist.account WHERE id = $k2; SELECT * FROM dist.account WHERE id = $k1", '0A000', 'REPEATABLE READ over two nodes');
refused(1, "BEGIN; UPDATE dist.account SET balance = 5 WHERE id = $k2; PREPARE TRANSACTION 'x'", '0A000', 'PREPARE TRANSACTION');
refused(1, "BEGIN READ ONLY; UPDATE dist.account SET balance = 5 WHERE id = $k2", '25006', 'a read-only transaction');
is($c->sql(1, "BEGIN; UPDATE dist.account SET balance = balance + 1 WHERE id = $k2; UPDATE dist.account SET balance = balance + 1 WHERE id = $second[2]; COMMIT; SELECT sum(balance) FROM dist.account WHERE id IN ($k2, $second[2])"), '2',
	'several shards of one primary in one transaction');
is($c->sql(3, "UPDATE dist.account SET balance = balance + 1 WHERE id IN ($k2, $second[2]); SELECT sum(balance) FROM dist.account WHERE id IN ($k2, $second[2])"), '4', 'and in one statement');
is($c->sql(1, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT balance FROM dist.account WHERE id = $k2; SELECT balance FROM dist.account WHERE id = $second[2]; COMMIT"), "2\n2", 'REPEATABLE READ at one other node');

# ------------------------------------------------ errors, cancels, time

my ($status, $out);
($status, $out, $err) = $c->try_sql(1, "BEGIN; UPDATE dist.account SET balance = 9 WHERE id = $k2; SET statement_timeout = 300; SELECT pg_sleep(20) FROM dist.account WHERE id = $k2; COMMIT", timeout => 30);
like($err, qr/57014/, 'statement_timeout cancels a shipped statement');
is($c->sql(2, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()"), '0', 'and nothing runs on over there');
is($c->sql(1, "SELECT balance FROM dist.account WHERE id = $k2"), '2', 'its transaction is rolled back over there');
is($c->sql(1, "BEGIN; UPDATE dist.account SET balance = 3 WHERE id = $k2; SAVEPOINT s; SET LOCAL statement_timeout = 300;\n\\set ON_ERROR_STOP off\nSELECT pg_sleep(20) FROM dist.account WHERE id = $k2;\nROLLBACK TO s; SELECT balance FROM dist.account WHERE id = $k2; UPDATE dist.account SET balance = 2 WHERE id = $k2; COMMIT"), '3', 'a cancel back to a savepoint keeps what was before');

# ------------------------------------------------ partitions, plans

my $part = $c->sql(1, "SELECT tableoid::regclass FROM dist.account WHERE id = $k2");
like($part, qr/^payshard_data\./, 'a row knows its partition, from any node');
is($c->sql($_, "SELECT balance FROM $part WHERE id = $k2"), '2', "the partition itself is read where its primary is, from node $_") foreach 1 .. 3;
is($c->sql($_, "UPDATE $part SET balance = 2 WHERE id = $k2 RETURNING balance"), '2', "and written there, from node $_") foreach 1 .. 3;
is($c->sql(1, "COPY $part (id, balance) TO STDOUT") =~ /^$k2\t2$/m ? 1 : 0, 1, 'COPY of a partition that is elsewhere');
is(scalar(split /\n/, $c->sql(3, 'COPY dist.account (id) TO STDOUT')), 6, 'COPY of the table');
($status, $out, $err) = $c->try_sql(1, "COPY dist.account (id, name) FROM STDIN;\n$k2\tx\n\\.\n");
isnt($status, 0, 'COPY FROM with a row of another primary is refused');

my $plan = $c->sql(1, "EXPLAIN (VERBOSE, COSTS OFF) SELECT name FROM dist.account WHERE id = $k2");
like($plan, qr/PayshardShip.*Shard: \d+\n\s*Node: n2\n\s*In-sync: n\d, n\d\n\s*Remote SQL: SELECT name/s, 'EXPLAIN VERBOSE of a shipped statement');
like($c->sql(1, "EXPLAIN (FORMAT JSON) SELECT name FROM dist.account WHERE id = $k2"), qr/"Node": "n2",\s+"In-sync": \["n\d", "n\d"\]/, 'in JSON');
like($c->sql(1, 'EXPLAIN (VERBOSE, COSTS OFF) SELECT name FROM dist.account WHERE balance > 3'), qr/Nodes: n2, n3\n\s*Remote SQL: SELECT name\s+FROM dist\.account\s+WHERE \(\(balance > '3'::numeric\) AND payshard\.local_scope/, 'filters and columns are pushed');
unlike($c->sql(1, "EXPLAIN SELECT name FROM dist.account WHERE id = $k1"), qr/Payshard|Append/, 'a local key is planned on its partition');

# The statement of a scatter of which nothing is alive here: the maps must be the same all the same.
my $terms = $c->sql(1, 'SELECT sum(term) FROM payshard.shards');
is($c->sql(1, "SET payshard.shipped = on; SELECT count(*) FROM dist.account WHERE id = $k2 AND payshard.local_scope('$terms')"), '0', 'in local scope rows of another node are not here');
refused(1, "SET payshard.shipped = on; SELECT count(*) FROM dist.account WHERE id = $k2 AND payshard.local_scope('" . ($terms - 1) . "')", '40001', 'an asker with another map');
refused(1, "SET payshard.shipped = on; SELECT count(*) FROM dist.account WHERE id = $k2 AND payshard.local_scope('" . ($terms + 1) . "')", '40001', 'or with a newer one');

# ------------------------------------------------ users

$c->sql($_, 'CREATE ROLE clerk LOGIN; GRANT USAGE ON SCHEMA dist TO clerk') foreach 1 .. 3;
$c->sql($_, 'GRANT SELECT (id, balance), UPDATE (balance) ON dist.account TO clerk') foreach 1 .. 3;
($status, $out, $err) = $c->try_sql(1, "SET ROLE clerk; SELECT balance FROM dist.account WHERE id = $k2");
like($err, qr/2F003/, 'a user without credentials does not borrow ours');
$c->sql(1, "ALTER SERVER payshard_n2 OPTIONS (ADD password_required 'false')");
is($c->sql(1, "SET ROLE clerk; SELECT balance FROM dist.account WHERE id = $k2"), '2', 'unless a superuser allows it');
($status, $out, $err) = $c->try_sql(1, "SET ROLE clerk; SELECT name FROM dist.account WHERE id = $k2");
like($err, qr/42501/, 'rights count');
($status, $out, $err) = $c->try_sql(1, "SET ROLE clerk; DELETE FROM dist.account WHERE id = $k2");
like($err, qr/42501/, 'for writes too');

# ------------------------------------------------ many executions

$c->sql(1, "UPDATE dist.account SET balance = 0 WHERE id = $_") foreach $k1, $k2, $k3;
foreach my $mode (qw(simple extended prepared))
{
	my $file = $c->node(1)->basedir . '/bump.sql';
	open my $f, '>', $file or die $!;
	print $f "\\set n random(1, 3)\n\\set k case when :n = 1 then $k1 when :n = 2 then $k2 else $k3 end\n",
	  "BEGIN;\nUPDATE dist.account SET balance = balance + 1 WHERE id = :k;\nSELECT balance FROM dist.account WHERE id = :k;\nCOMMIT;\n";
	close $f;
	my ($stdout, $stderr);
	ok(run([ 'pgbench', '-n', '-M', $mode, '-c', 4, '-t', 50, '-f', $file, $c->node(1)->connstr('postgres') ], '>', \$stdout, '2>', \$stderr), "pgbench -M $mode") or diag($stderr);
}
is($c->sql(2, "SELECT sum(balance) FROM dist.account WHERE id IN ($k1, $k2, $k3)"), '600', 'every acknowledged write is there once');
$c->assert_copies_equal(1);
ok($c->is_running($_), "node $_ runs on") foreach 1 .. 3;
unlike(PostgreSQL::Test::Utils::slurp_file($c->node($_)->logfile), qr/TRAP|was terminated by signal|WARNING/, "the log of node $_ shows no crash") foreach 1 .. 3;

done_testing();
