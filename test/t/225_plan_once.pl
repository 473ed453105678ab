# A prepared statement whose key is a parameter is planned once for each shard, and answers as
# a plain table does, whatever happens between two executions.
#
# Three data nodes, and beside the distributed tables plain ones of the same names in another
# schema.  Statements are prepared and executed many times, over keys of each node, at each
# node, under each plan_cache_mode: the answers must be those of the plain tables, and the
# messages those of a session that remembers nothing (payshard.plans_kept = 0).  Then tables,
# triggers and rights change between executions; statements run inside themselves and inside
# cursors that outlive their plan; and a primary dies.  Keys 1, 4, 6 have their primary at
# n1, 2, 8 at n2, 3, 5, 7 at n3.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IPC::Run qw(run start timeout);
use PayshardCluster;
use Test::More;

plan skip_all => 'needs a build with PAYSHARD_FAULTS=1' unless $ENV{PAYSHARD_FAULTS};

my $c = PayshardCluster->new(nodes => 3, replicas => 2, shards => 16);
my @keys = ([ 1, 4, 6 ], [ 2, 8 ], [ 3, 5, 7 ]);

my $objects = q{
	CREATE SCHEMA IF NOT EXISTS dist; CREATE SCHEMA plain; CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA dist, plain TO app;
	CREATE DOMAIN public.posint AS int CHECK (VALUE > 0);
	CREATE FUNCTION public.inner_f(x numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT x + 1';
	CREATE FUNCTION public.outer_f(x numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT public.inner_f(x)';
	CREATE FUNCTION public.again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF new.n > 0 THEN INSERT INTO rec (id, n) VALUES (new.id, new.n - 1); UPDATE rec SET v = coalesce(v, '') || new.n WHERE id = new.id; END IF; RETURN NULL; END $$;
	CREATE FUNCTION public.upper_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.name := upper(new.name); RETURN new; END $$;
	CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now' USING errcode = 'P9999'; END $$;
};
my @tables = (
	acct => [ "'id'", q{id bigint PRIMARY KEY, name text NOT NULL, balance numeric NOT NULL DEFAULT 0 CHECK (balance > -1000), tags text[], dbl numeric GENERATED ALWAYS AS (balance * 2) STORED},
		q{INSERT INTO acct (id, name, balance) SELECT g, 'acc' || g, g * 10 FROM generate_series(1, 24) g} ],
	pay => [ "'acct_id'", q{acct_id bigint NOT NULL REFERENCES acct, id bigint NOT NULL, amount numeric NOT NULL, note varchar(10) DEFAULT 'none', PRIMARY KEY (acct_id, id)},
		q{INSERT INTO pay (acct_id, id, amount) SELECT a, i, a * i FROM generate_series(1, 16) a, generate_series(1, 3) i} ],
	textk => [ "'code'", 'code text PRIMARY KEY, v int', q{INSERT INTO textk SELECT 'code' || g, g FROM generate_series(1, 20) g} ],
	pair => [ "'a', 'b'", 'a int, b text, v int, PRIMARY KEY (a, b)', q{INSERT INTO pair SELECT g, 'b' || g, g FROM generate_series(1, 20) g} ],
	rl => [ "'id'", 'id bigint PRIMARY KEY, tenant int, v text', q{INSERT INTO rl SELECT g, g % 3, 'v' || g FROM generate_series(1, 12) g} ],
	rec => [ "'id'", 'id bigint, n int, v text, PRIMARY KEY (id, n)', '' ],
	moved => [ "'id'", 'gone int, id bigint PRIMARY KEY, v text', q{INSERT INTO moved SELECT 0, g, 'v' || g FROM generate_series(1, 12) g; ALTER TABLE moved DROP gone} ]);

$c->sql($_, $objects) foreach 1 .. 3;
foreach my $place ([ 1, 'dist' ], [ 1, 'plain' ], [ 2, 'plain' ], [ 3, 'plain' ])
{
	my ($i, $schema) = @$place;
	my $sql = "SET client_min_messages = warning; SET search_path = $schema, public;\n";

	for (my $t = 0; $t < @tables; $t += 2)
	{
		my ($key, $definition, $rows) = @{ $tables[ $t + 1 ] };
		$sql .= "CREATE TABLE $tables[$t] ($definition); $rows;\n";
		$sql .= "SELECT payshard.create_distributed_table('$tables[$t]', $key);\n" if $schema eq 'dist';
	}
	$c->sql($i, $sql . q{ALTER TABLE rl ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON rl USING (tenant = current_setting('app.tenant', true)::int);
		GRANT ALL ON rl TO app; GRANT INSERT, UPDATE, SELECT (id) ON acct TO app; CREATE TRIGGER a AFTER INSERT ON rec FOR EACH ROW EXECUTE FUNCTION again();});
}
foreach my $i (1 .. 3)
{
	$c->sql($i, join '', map { "ALTER SERVER payshard_n$_ OPTIONS (ADD password_required 'false');" } grep { $_ != $i } 1 .. 3);
}

# session(node, schema, settings, sql): all it says; partitions by the name of their table.
sub session
{
	my ($i, $schema, $settings, $sql) = @_;
	my $out;

	run [ 'psql', '-XAtq', '-d', $c->node($i)->connstr('postgres') ], '<', \"SET search_path = $schema, public; $settings;\n\\set SHOW_CONTEXT never\n$sql", '&>', \$out;
	$out =~ s/^psql:<stdin>:\d+: //mg;
	$out =~ s/\b(?:dist|plain)_(\w+?)_\d+/$1/g;
	return $out;
}

# ------------------------------------------------ the same answers

# statement => arguments; %k is a key, %n a number of its own for each execution
my @statements = (
	'(bigint, bigint) AS INSERT INTO pay (acct_id, id, amount) VALUES ($1, $2, $2)' => '%k, %n',
	'(bigint, bigint) AS INSERT INTO pay (acct_id, id, amount) VALUES ($1, $2, $2) RETURNING *, tableoid IS NULL' => '%k, %n',
	'(bigint, numeric) AS INSERT INTO pay (acct_id, id, amount) VALUES ($1, 3, $2) ON CONFLICT (acct_id, id) DO UPDATE SET amount = pay.amount + excluded.amount WHERE pay.amount < 50 RETURNING *' => '%k, %n',
	'(bigint, numeric) AS INSERT INTO pay (acct_id, id, amount) VALUES ($1, $2, 1) ON CONFLICT DO NOTHING RETURNING id' => '%k, %n %% 5',
	'(bigint, numeric) AS INSERT INTO pay (acct_id, id, amount) VALUES ($1, 1, 1) ON CONFLICT ON CONSTRAINT pay_pkey DO UPDATE SET note = $2::text RETURNING note' => '%k, %n',
	'(bigint, numeric) AS INSERT INTO pay (acct_id, id, amount) VALUES ($1, 1, 1) ON CONFLICT (acct_id, id) DO UPDATE SET acct_id = excluded.acct_id, amount = $2 RETURNING *' => '%k, %n',
	'(bigint, text) AS INSERT INTO pay VALUES ($1, 77, 5, $2)' => '%k, repeat(\'x\', 8 + %n %% 4)',
	'(bigint, numeric) AS UPDATE acct SET balance = balance + $2 WHERE id = $1' => '%k, %n',
	'(int, numeric) AS UPDATE acct SET balance = balance - $2, tags[2] = $2::text WHERE id = $1 RETURNING *' => '%k, %n',
	'(bigint, numeric) AS UPDATE acct SET balance = -$2 WHERE id = $1 RETURNING balance' => '%k, %n * 200',
	'(bigint, text) AS UPDATE acct SET id = $1, name = $2 WHERE id = $1 RETURNING id, name' => '%k, \'n%n\'',
	'(bigint, bigint) AS UPDATE pay SET id = id + $2 WHERE acct_id = $1 AND id = 3 RETURNING id' => '%k, %n',
	'(bigint, bigint) AS DELETE FROM pay WHERE acct_id = $1 AND id = $2 RETURNING *' => '%k, %n %% 4',
	'(bigint) AS SELECT * FROM acct WHERE id = $1' => '%k',
	'(bigint) AS SELECT * FROM acct WHERE id = $1 FOR UPDATE' => '%k',
	'(bigint, int) AS SELECT id, amount FROM pay WHERE acct_id = $1 AND id > $2 ORDER BY id DESC LIMIT 2' => '%k, %n %% 3',
	'(bigint) AS SELECT count(*), sum(amount), (array_agg(id ORDER BY id))[1] FROM pay WHERE acct_id = $1 GROUP BY note HAVING count(*) > 1' => '%k',
	'(bigint) AS SELECT id, rank() OVER (ORDER BY amount), unnest(array[1, 2]) FROM pay p WHERE $1 = p.acct_id AND random() >= 0 ORDER BY 1, 3' => '%k',
	'(bigint) AS SELECT acct, row_to_json(acct) FROM acct WHERE id = $1' => '%k',
	'(bigint, bigint) AS SELECT count(*) FROM pay WHERE acct_id = $1 AND acct_id = $2' => '%k, 4',
	'(smallint) AS SELECT name FROM acct WHERE id = $1' => '%k',
	'(public.posint) AS SELECT name FROM acct WHERE id = $1' => '%k',
	'(numeric) AS SELECT name FROM acct WHERE id = $1' => '%k',
	'(varchar) AS SELECT v FROM textk WHERE code = $1' => '\'code%k\'',
	'(name) AS SELECT v FROM textk WHERE code = $1' => '\'code%k\'',
	'(text, int) AS UPDATE textk SET v = $2 WHERE code = $1 RETURNING *' => '\'code\' || %n %% 2 + 1, %n',
	'(bigint, int) AS SELECT v FROM pair WHERE a = $1 AND b = \'b4\' AND v > $2' => '%k, 0',
	'(bigint) AS INSERT INTO pair VALUES ($1, \'c\', 5) ON CONFLICT (a, b) DO UPDATE SET v = pair.v + 1 RETURNING *' => '%k %% 2',
	'(bigint, text) AS UPDATE moved SET v = v || $2 WHERE id = $1 RETURNING *' => '%k, \'x\'',
	'(bigint) AS SELECT public.outer_f(balance) FROM acct WHERE id = $1' => '%k',
	'(bigint) AS WITH w AS (UPDATE acct SET balance = 1 WHERE id = $1 RETURNING id) SELECT 1' => '%k',
	'(bigint) AS SELECT name FROM acct WHERE id = $1 AND EXISTS (SELECT FROM pay WHERE acct_id = $1)' => '%k');
my $show = 'SELECT * FROM acct WHERE id IN (%1$s) ORDER BY id; SELECT * FROM pay WHERE acct_id IN (%1$s) ORDER BY 1, 2; SELECT sum(v) FROM textk; SELECT sum(v) FROM pair;';

# All statements of one session, with the keys of one node each time.
sub script
{
	my ($keys) = @_;
	my $sql = '';

	for (my $s = 0; $s < @statements; $s += 2)
	{
		my $n = 100;
		my $execute = sub {
			my ($key) = @_;
			(my $arguments = $statements[ $s + 1 ]) =~ s/%k/$key/;
			$n++;
			$arguments =~ s/%n/$n/;
			$arguments =~ s/%%/%/g;
			return "SAVEPOINT s;\nEXECUTE q ($arguments);\nROLLBACK TO s;\nEXECUTE q ($arguments);\n";
		};
		$sql .= "\\echo statement $s\nPREPARE q $statements[$s];\nBEGIN;\n";
		$sql .= $execute->($_) foreach (@$keys) x 3;
		$sql .= "ROLLBACK;\nBEGIN;\n" . $execute->('NULL') . "ROLLBACK;\nBEGIN;\n";
		$sql .= $execute->($_) foreach (@$keys) x 2;
		$sql .= sprintf($show, join ', ', @$keys) . "\nROLLBACK;\nDEALLOCATE q;\n";
	}
	return $sql;
}

# same(got, wanted, name): one test point; shows where two texts begin to differ.
sub same
{
	my ($got, $wanted, $name) = @_;
	my @got = split /\n/, $got;
	my @wanted = split /\n/, $wanted;
	my $i = 0;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return 1 if ok($got eq $wanted, $name);
	$i++ while ($got[$i] // '') eq ($wanted[$i] // '') && $i < @got;
	diag(join "\n", "from line $i on:", '---- wanted', grep({ defined } @wanted[ $i .. $i + 9 ]), '---- got', grep({ defined } @got[ $i .. $i + 9 ]));
	return 0;
}

# different(a, b): says where two sessions begin to differ.
sub different
{
	my @a = split /^(?=statement)/m, shift;
	my @b = split /^(?=statement)/m, shift;

	foreach my $i (0 .. ($#a > $#b ? $#a : $#b))
	{
		next if ($a[$i] // '') eq ($b[$i] // '');
		my ($s) = ($a[$i] // $b[$i]) =~ /statement (\d+)/;
		diag("$statements[$s // 0]\n---- wanted\n", $a[$i] // '', "---- got\n", $b[$i] // '');
		return 1;
	}
	return 0;
}

foreach my $mode (qw(auto force_generic_plan force_custom_plan))
{
	foreach my $i ($mode eq 'force_custom_plan' ? 1 : 1 .. 3)
	{
		my ($answers, $messages) = (0, 0);

		foreach my $keys (@keys)
		{
			my $sql = script($keys);
			my $codes = "SET plan_cache_mode = $mode;\n\\set VERBOSITY sqlstate\n";
			my $wanted = session($i, 'plain', $codes, $sql);

			like($wanted, qr/^ERROR:  23502$/m, 'NULL keys are refused by plain tables') if $mode eq 'auto' && $i == 1;
			$answers += different($wanted, session($i, 'dist', $codes, $sql));
			$messages += different(session($i, 'dist', "SET plan_cache_mode = $mode; SET payshard.plans_kept = 0", $sql),
				session($i, 'dist', "SET plan_cache_mode = $mode", $sql));
		}
		is($answers, 0, "$mode at node $i: answers as of plain tables");
		is($messages, 0, "$mode at node $i: messages as without remembered plans");
	}
}

# ------------------------------------------------ planned once

my $times = "SET client_min_messages = debug1; PREPARE p (bigint, bigint) AS INSERT INTO pay (acct_id, id, amount) VALUES (\$1, \$2, 5) RETURNING 'row'; BEGIN;\n";
my $n = 100;
$times .= "EXECUTE p ($_, " . $n++ . ");\n" foreach (1, 4, 6) x 10;
my $said = session(1, 'dist', '', "$times EXPLAIN (COSTS OFF) EXECUTE p (4, 1);\nEXPLAIN (COSTS OFF) EXECUTE p (2, 1);\nROLLBACK;");
is(scalar(() = $said =~ /^row$/mg), 30, 'thirty executions');
my %planned;
$planned{$_}++ foreach $said =~ /planned (for shard \d+ of relation \d+)/g;
is_deeply([ sort values %planned ], [ (1) x 6 ], 'are planned once for each shard, and the checks of their foreign key too') or diag($said);
like($said, qr/^Insert on pay pay\n  ->  Result\n/m, 'EXPLAIN EXECUTE shows the plan of the partition') or diag($said);
like($said, qr/PayshardShip\)\n  Shard: \d+\n  Node: n2\n  In-sync: n/, 'or where it is shipped to');
unlike(session(1, 'dist', 'SET payshard.plans_kept = 0', $times), qr/planned for shard/, 'payshard.plans_kept = 0 remembers nothing');
is(session(1, 'dist', '', q{SET plan_cache_mode = force_generic_plan; PREPARE p (bigint) AS SELECT name FROM acct WHERE id = $1; EXECUTE p (1); EXPLAIN (COSTS OFF) EXECUTE p (1);}),
	"acc1\nIndex Scan using acct_pkey on acct acct\n  Index Cond: (id = \$1)\n", 'a plan that is kept does not read all of a small partition');
my $few = session(1, 'dist', 'SET payshard.plans_kept = 2', $times . q{SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'payshard plan'; ROLLBACK;});
cmp_ok(() = $few =~ /planned for shard/g, '>', 4, 'payshard.plans_kept bounds them');
like($few, qr/^[23]\n\z/m, 'and their memory');
like(session(1, 'dist', '', q{SET plan_cache_mode = force_generic_plan; PREPARE p (bigint) AS SELECT name FROM acct WHERE id = $1; BEGIN ISOLATION LEVEL SERIALIZABLE; EXECUTE p (1);}),
	qr/SERIALIZABLE transactions cannot use distributed tables/, 'SERIALIZABLE is refused as ever');
like(session(1, 'dist', '', q{SET plan_cache_mode = force_generic_plan; PREPARE p (bigint) AS UPDATE acct SET name = 'x' WHERE id = $1; BEGIN READ ONLY; EXECUTE p (1);}),
	qr/cannot execute UPDATE in a read-only transaction/, 'READ ONLY too');

# ------------------------------------------------ something changes between executions

my @all = map { @$_ } @keys;
sub each_key { my ($sql) = @_; return join '', map { (my $one = $sql) =~ s/%k/$_/g; "$one\n" } @all; }
# functions are nobody's but the node's
sub other_function
{
	my ($plus) = @_;
	return join '', map { "\n\\! psql -XAtq -d \"" . $c->node($_)->connstr('postgres') . "\" -c \"CREATE OR REPLACE FUNCTION public.inner_f(x numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT x + $plus'\"\n" } 1 .. 3;
}
my $uses = each_key('EXECUTE i (%k); EXECUTE u (%k); EXECUTE s (%k); EXECUTE d (%k);') x 2;
my $changes = q{
	CREATE TABLE t (id bigint, n int DEFAULT 1, name text DEFAULT 'new', v numeric DEFAULT 1, PRIMARY KEY (id, n)); %s
	PREPARE i (bigint) AS INSERT INTO t (id) VALUES ($1); PREPARE u (bigint) AS UPDATE t SET name = name || 'u', v = public.outer_f(v) WHERE id = $1 RETURNING name, v;
	PREPARE s (bigint) AS SELECT name, v FROM t WHERE id = $1 FOR UPDATE; PREPARE d (bigint) AS DELETE FROM t WHERE id = $1 RETURNING *;
} . join $uses, '', q{ALTER TABLE t ADD COLUMN added int DEFAULT 7;}, q{CREATE INDEX ON t (name);}, q{DROP INDEX t_name_idx;}, q{ALTER TABLE t ADD CHECK (v < 2);}, q{ALTER TABLE t DROP CONSTRAINT t_v_check; ALTER TABLE t ALTER name SET DEFAULT 'other';},
	other_function(100),
	q{CREATE TRIGGER b BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION upper_row();}, q{CREATE TRIGGER b2 BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION upper_row(); DROP TRIGGER b ON t;},
	q{DROP TRIGGER b2 ON t; CREATE TRIGGER st BEFORE INSERT OR DELETE ON t FOR EACH STATEMENT EXECUTE FUNCTION refuse();}, q{DROP TRIGGER st ON t; ALTER TABLE t DROP COLUMN v;}, q{ALTER TABLE t ADD COLUMN v text DEFAULT 'text';},
	q{ALTER TABLE t RENAME COLUMN name TO title;}, q{ALTER TABLE t RENAME TO t2;}, q{DROP TABLE t2;}, '';
my $back = other_function(1);
foreach my $mode (qw(auto force_generic_plan))
{
	my $settings = "SET client_min_messages = notice; SET plan_cache_mode = $mode;\n\\set VERBOSITY sqlstate\n";
	my $wanted = session(1, 'plain', $settings, $back . sprintf($changes, ''));
	my $got = session(1, 'dist', $settings, $back . sprintf($changes, "SELECT payshard.create_distributed_table('t', 'id') \\gset\n"));

	like($wanted, qr/^(?:NOTICE|ERROR).*\n/m, 'changes are felt');
	same($got, $wanted, "$mode: a table that changes between executions");
}

# something happens to a partition alone
my $reads = 'EXECUTE s (1); EXECUTE s (4); EXECUTE s (6);';
is(session(1, 'dist', '', qq{SET plan_cache_mode = force_generic_plan; PREPARE s (bigint) AS SELECT name FROM acct WHERE id = \$1; $reads
	SELECT format('REINDEX TABLE CONCURRENTLY %s', inhrelid::regclass) FROM pg_inherits WHERE inhparent = 'acct'::regclass \\gexec
	$reads}), "acc1\nacc4\nacc6\n" x 2, 'an index is made anew');

# ------------------------------------------------ inside themselves, cursors

foreach my $kept (0, 1, 1024)
{
	foreach my $sql (
		each_key('INSERT INTO rec VALUES (%k, 7); SELECT * FROM rec WHERE id = %k ORDER BY n; BEGIN; INSERT INTO rec VALUES (%k, 12); ROLLBACK; DELETE FROM rec WHERE id = %k;'),
		each_key(q{DO $$ DECLARE k bigint := %k; r record; t text := ''; BEGIN FOR j IN 1 .. 9 LOOP FOR r IN SELECT * FROM pay WHERE acct_id = k ORDER BY id LOOP t := t || r.amount; UPDATE pay SET amount = amount + 0 WHERE acct_id = k AND id = r.id; END LOOP; END LOOP; RAISE NOTICE '%', t; END $$;}),
		each_key(q{DO $$ DECLARE k bigint := %k; c CURSOR (x bigint) FOR SELECT id FROM pay WHERE acct_id = x ORDER BY id; d refcursor; v bigint; w bigint; t text := ''; BEGIN FOR j IN 1 .. 9 LOOP
			OPEN c (k); FETCH c INTO v; OPEN d FOR SELECT id FROM pay WHERE acct_id = k ORDER BY id DESC; FETCH d INTO w;
			FOR i IN 1 .. 3 LOOP PERFORM FROM acct WHERE id = k; UPDATE acct SET balance = balance + 0 WHERE id = k; END LOOP; IF j = 8 THEN DISCARD PLANS; END IF;
			t := t || v || w; FETCH c INTO v; FETCH d INTO w; t := t || v || w; CLOSE c; CLOSE d; END LOOP; RAISE NOTICE '%', t; END $$;}),
		each_key(q{DO $$ DECLARE k bigint := %k; n int := 0; BEGIN FOR j IN 1 .. 9 LOOP BEGIN INSERT INTO pay (acct_id, id, amount) VALUES (k, j, 1 / (j % 3)); n := n + 1; EXCEPTION WHEN unique_violation THEN n := n + 100; WHEN division_by_zero THEN n := n + 10000; END; END LOOP; DELETE FROM pay WHERE acct_id = k AND id > 3; RAISE NOTICE '%', n; END $$;}),
		q{CREATE FUNCTION pg_temp.name_of(k bigint) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT name FROM acct WHERE id = k';} . each_key('SELECT pg_temp.name_of(%k) FROM generate_series(1, 9);'))
	{
		my $settings = "SET client_min_messages = notice; SET payshard.plans_kept = $kept;\n\\set VERBOSITY sqlstate\n";
		my $wanted = session(1, 'plain', $settings, $sql);

		isnt($wanted, '', 'it says something');
		same(session(1, 'dist', $settings, $sql), $wanted, "$kept plans: " . substr($sql, 0, 60));
	}
}

# ------------------------------------------------ rights

my $rights = q{PREPARE i (bigint, text) AS INSERT INTO acct (id, name) VALUES ($1, $2); PREPARE u (bigint, numeric) AS UPDATE acct SET balance = $2 WHERE id = $1; PREPARE s (bigint) AS SELECT name FROM acct WHERE id = $1;
	PREPARE r (bigint) AS SELECT * FROM rl WHERE id = $1; PREPARE w (bigint) AS UPDATE rl SET v = 'w' WHERE id = $1 RETURNING *; PREPARE p (bigint) AS SELECT * FROM pay WHERE acct_id = $1 ORDER BY id;
} . join '', map { ("SET ROLE $_; SET app.tenant = '1';\n", map { "BEGIN; EXECUTE i ($_, NULL); ROLLBACK; EXECUTE u ($_, -5000); EXECUTE u ($_, 3);\n EXECUTE s ($_); EXECUTE r ($_); BEGIN; EXECUTE w ($_); ROLLBACK; EXECUTE p ($_);\n" } (1, 4, 6) x 3) } qw(postgres app postgres);
$rights =~ s/SET ROLE postgres/RESET ROLE/g;
foreach my $mode (qw(auto force_generic_plan))
{
	my $wanted = session(1, 'plain', "SET plan_cache_mode = $mode", $rights);

	like($wanted, qr/permission denied for table pay/, 'rights are asked for');
	same(session(1, 'dist', "SET plan_cache_mode = $mode", $rights), $wanted, "$mode: rights, policies, and what errors show of a row");
}

# ------------------------------------------------ the primary dies

# n2 crashes when a payment is in the other journals, and nobody knows yet that it is decided.  A
# statement that was planned before and begins before the failover must see it afterwards.
my ($in, $out) = ("SET search_path = dist; SET payshard.failover_wait = '120s';\n", '');
my $heir = $c->sql(1, q{SELECT substr(node, 2) FROM payshard.nodes_for(payshard.shard_for('dist.acct', '2')) WHERE NOT is_primary});
my $session = start [ 'psql', '-XAtq', '-d', $c->node($heir)->connstr('postgres') ],
	'<', \$in, '&>', \$out, timeout(180);
my $round = 0;
sub say_in_session
{
	$in .= join('', @_) . "\\echo round " . ++$round . "\n";
	return;
}
sub heard { $session->pump until $out =~ /round $round\n/; my $text = $out; $out = ''; return $text; }

say_in_session(q{SET plan_cache_mode = force_generic_plan; PREPARE s (bigint) AS SELECT count(*) FROM pay WHERE acct_id = $1; PREPARE i (bigint, bigint) AS INSERT INTO pay (acct_id, id, amount) VALUES ($1, $2, 1);
	EXECUTE s (2); EXECUTE s (8); EXECUTE s (1); EXECUTE i (2, 500); EXECUTE i (8, 500);}, "\n");
like(heard(), qr/^3\n3\n3\nround/, 'a session knows how its shards are served');
$c->arm_fault(2, 'commit.after_acks', 'panic');
$c->try_sql(2, 'INSERT INTO dist.pay (acct_id, id, amount) VALUES (2, 600, 1)');
$c->wait_down(2);
$c->wait_sql($_, q{SELECT suspicion IS NOT NULL FROM payshard.leases WHERE node = 'n2'}) foreach 1, 3;
say_in_session("EXECUTE s (2); EXECUTE s (2); EXECUTE i (2, 700); EXECUTE i (8, 700); EXECUTE s (2); EXECUTE s (8); EXECUTE s (1);\n");
$session->pump_nb;
$c->wait_sql($heir, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'EXECUTE s (2)%' AND state = 'active'});
$c->sql(1, q{SELECT payshard.failover('n2')});
is(heard(), "5\n5\n6\n5\n3\nround 2\n", 'a statement that waited for the failover sees what was settled') or diag($out);
$c->start(2);
$c->wait_all_in_sync(90);
say_in_session("EXECUTE i (2, 800); EXECUTE s (2); EXECUTE s (8); EXECUTE s (1);\n");
is(heard(), "7\n5\n3\nround 3\n", 'and goes on when the node is back') or diag($out);
$in .= "\\q\n";
$session->finish;

$c->assert_copies_equal(1);
ok($c->is_running($_), "node $_ runs on") foreach 1 .. 3;
unlike(PostgreSQL::Test::Utils::slurp_file($c->node($_)->logfile), qr/TRAP|signal 11/, "the log of node $_ shows no crash") foreach 1 .. 3;

done_testing();
