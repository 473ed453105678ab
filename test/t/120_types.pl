# Every type, and every shape of a row, is the same on both placements.
#
# Three data nodes.  A table with one column of each built-in type and one of each array of
# them, beside tables with domains, enums, composite and range types of a user, generated
# and dropped columns and values of 1 MB, is written at every node: INSERT, UPDATE, upsert,
# DELETE, rolled back and committed.  The same statements run on a plain table at one node:
# contents must be equal, and the digests of all placements, each time.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PayshardCluster;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, replicas => 2, shards => 8);

# Two values of each type that a table of users may have.
my %samples = (
	bit => [ "B'1'", "B'0'" ], bool => [ 'true', 'false' ],
	bpchar => [ "'x  '", "''" ], bytea => [ q{'\x00ff5c27'}, q{''} ],
	char => [ q{'a'}, q{'\377'} ], cidr => [ "'10.1.0.0/16'", "'2001:db8::/32'" ],
	circle => [ "'<(1,2),3>'", "'<(0.1,1e300),0>'" ], cid => [ "'7'", "'4294967295'" ],
	date => [ "'2026-02-28'", "'infinity'" ], float4 => [ "'NaN'", "'1.1754944e-38'" ],
	float8 => [ "'-0'", "'0.1'" ], inet => [ "'10.0.0.1/8'", "'::1'" ],
	int2 => [ "'-32768'", '32767' ], int4 => [ "'-2147483648'", '7' ],
	int8 => [ "'-9223372036854775808'", '5000000000' ],
	interval => [ "'1 mon -2 days 03:04:05.678901'", "'-178000000 years'" ],
	json => [ q{'{"b":  1, "b": [null]}'}, q{'"\u00e4"'} ],
	jsonb => [ q{'{"b": 1e400, "a": {"x": [1, null, "\u00e4"]}}'}, q{'[]'} ],
	jsonpath => [ q{'$.a[*] ? (@ > 1)'}, q{'strict $'} ],
	line => [ "'{1,-1,0}'", "'{0.1,2,3}'" ], lseg => [ "'[(0,0),(1,1)]'", "'[(1e-9,2),(3,4)]'" ],
	box => [ "'(3,4),(1,2)'", "'(0,0),(0,0)'" ], macaddr => [ "'08:00:2b:01:02:03'", "'0:0:0:0:0:0'" ],
	macaddr8 => [ "'08:00:2b:01:02:03:04:05'", "'ff:ff:ff:ff:ff:ff:ff:ff'" ],
	money => [ "'-12.34'", "'92233720368547758.07'" ], name => [ "'a name'", "''" ],
	numeric => [ "'123456789012345678901234567890.000100'", "'NaN'" ], oid => [ '1', '4294967295' ],
	path => [ "'[(0,0),(1,1),(2,0)]'", "'((0,0),(1,1))'" ],
	pg_lsn => [ "'16/B374D848'", "'0/0'" ], pg_snapshot => [ "'10:20:10,14,15'", "'1:1:'" ],
	point => [ "'(1.5,-0)'", "'(Infinity,NaN)'" ], polygon => [ "'((0,0),(1,1),(2,0))'", "'((0,0))'" ],
	refcursor => [ "'c1'", "''" ], text => [ q{E'\u00e4\\t\n"'}, "''" ], tid => [ "'(1,2)'", "'(4294967295,65535)'" ],
	time => [ "'24:00:00'", "'00:00:00.000001'" ], timetz => [ "'12:00:00+15:59'", "'00:00:00-15:59'" ],
	timestamp => [ "'4713-01-01 00:00:00 BC'", "'infinity'" ],
	timestamptz => [ "'2026-03-29 02:30:00.5 Europe/Berlin'", "'-infinity'" ],
	tsquery => [ q{'fat:AB & !(cat | rat:*) <3> x'}, q{''} ], tsvector => [ q{'a:1A,2B c fat:3'}, q{''} ],
	txid_snapshot => [ "'10:20:10,14,15'", "'1:1:'" ], uuid => [ "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'" ],
	varbit => [ "B'10101'", "B''" ], varchar => [ "'varied '", "''" ], xid => [ "'7'", "'4294967295'" ],
	xid8 => [ "'7'", "'18446744073709551615'" ], xml => [ q{'<a b="c">&lt;</a>'}, q{'text'} ],
	int4range => [ "'[1,5)'", "'empty'" ], int8range => [ "'(,5000000000]'", "'(,)'" ],
	numrange => [ "'[1.10,2.200]'", "'[0,0]'" ], tsrange => [ "'[2026-01-01,infinity)'", "'(,)'" ],
	tstzrange => [ "'[2026-01-01 00:00+00,)'", "'empty'" ], daterange => [ "'[2026-01-01,2026-02-01]'", "'empty'" ],
	int4multirange => [ "'{[1,5),[7,9)}'", "'{}'" ], int8multirange => [ "'{[1,5000000000)}'", "'{}'" ],
	nummultirange => [ "'{[1.10,2.200],(3,)}'", "'{}'" ], tsmultirange => [ "'{[2026-01-01,infinity)}'", "'{}'" ],
	tstzmultirange => [ "'{[2026-01-01 00:00+00,)}'", "'{}'" ], datemultirange => [ "'{[2026-01-01,2026-02-01]}'", "'{}'" ]);

# What belongs into the catalogs of one server is refused (below).
my $of_catalogs = qr/^(?:aclitem|reg\w+|int2vector|oidvector|gtsvector|pg_node_tree|pg_ndistinct|pg_dependencies|pg_mcv_list|pg_brin_\w+)$/;

my @types = split /\n/, $c->sql(1, q{SELECT typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace
	AND typtype IN ('b', 'r', 'm') AND typisdefined AND NOT (typelem <> 0 AND typlen = -1 AND typsubscript = 'array_subscript_handler'::regproc AND typname LIKE '\_%') ORDER BY 1});
is(join(' ', grep { !$samples{$_} && !/$of_catalogs/ } @types), '', 'every built-in type is tried');
my @refused = grep { /$of_catalogs/ } @types;
@types = grep { $samples{$_} } @types;
is(scalar(@types), scalar(keys %samples), 'all ' . scalar(@types) . ' samples are of types');

# ------------------------------------------------ the tables, distributed and plain

my %plain;		# table => its definition, to compare with

# Makes a table distributed in schema dist and plain, at node 1, in schema plain.
sub make_table
{
	my ($table, $definition, $key, $alter) = @_;
	$plain{$table} = 1;
	foreach my $schema ('dist', 'plain')
	{
		$c->sql(1, "SET search_path = $schema, public; CREATE TABLE $table ($definition);"
			  . ($schema eq 'dist' ? "SELECT payshard.create_distributed_table('$table', $key);" : '')
			  . ($alter // ''));
	}
	return;
}

# Statements at node i on the distributed tables, and at node 1 on the plain ones.
sub both
{
	my ($i, @statements) = @_;
	my $sql = join '', map { "$_;\n" } 'SET client_min_messages = warning', @statements;
	$c->sql($i, "SET search_path = dist, public;\n$sql");
	$c->sql(1, "SET search_path = plain, public;\n$sql");
	return;
}

# Every node sees the plain table's contents; all copies are equal.
sub assert_same
{
	my ($table, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $query = "SELECT count(*) || ' ' || coalesce(md5(string_agg(md5(t::text), ',' ORDER BY md5(t::text))), '') FROM";
	my $wanted = $c->sql(1, "$query plain.$table t");

	is($c->sql($_, "$query dist.$table t"), $wanted, "$name: as a plain table, seen from node $_") foreach 1 .. 3;
	$c->assert_copies_equal(1, "$name: all copies are equal");
	return;
}

$c->sql($_, q{CREATE SCHEMA dist; CREATE SCHEMA plain}) foreach 1 .. 3;

# ------------------------------------------------ every built-in type

my $wide = join ', ', 'id bigint PRIMARY KEY', map { ("\"c_$_\" pg_catalog.\"$_\"", "\"a_$_\" pg_catalog.\"$_\"[]") } @types;
my @columns = map { ("\"c_$_\"", "\"a_$_\"") } @types;
make_table('kinds', $wide, "'id'");

# Values of all columns: the n-th sample each.
sub values_of
{
	my ($n) = @_;
	return map {
		my ($value, $other) = @{ $samples{$_} }[ $n % 2, ($n + 1) % 2 ];
		("$value\::pg_catalog.\"$_\"", "ARRAY[NULL, $value, $other, $value]::pg_catalog.\"$_\"[]")
	} @types;
}

foreach my $i (1 .. 3)
{
	both($i, map {
		my @v = $_ == 6 ? ('NULL') x @columns : values_of($_);
		"INSERT INTO kinds (id, " . join(', ', @columns) . ") VALUES ($i$_, " . join(', ', @v) . ')'
	} 1 .. 6);
}
assert_same('kinds', 'INSERT');

foreach my $i (1 .. 3)
{
	my @v = values_of($i);
	my $other = $i % 3 + 1;
	both($i, map {
		my $k = $_;
		my $set = join ', ', map { "$columns[$_] = " . ($k % 2 ? 'NULL' : $v[$_]) } grep { $_ % 3 == $k % 3 } 0 .. $#columns;
		"UPDATE kinds SET $set WHERE id = $other$k"
	} 1 .. 6);
}
assert_same('kinds', 'UPDATE of some columns');

foreach my $i (1 .. 3)
{
	my @v = values_of($i + 1);
	both($i, map {
		'INSERT INTO kinds (id, ' . join(', ', @columns) . ") VALUES ($_, " . join(', ', @v)
		  . ') ON CONFLICT (id) DO UPDATE SET ' . join(', ', map { "$_ = excluded.$_" } @columns)
	} 11, 26, 33, 40 + $i);
}
assert_same('kinds', 'upsert');

# As parameters of a prepared statement too: values travel otherwise then.
foreach my $i (1 .. 3)
{
	my @v = values_of($i);
	my $types = join ', ', map { ("pg_catalog.\"$_\"", "pg_catalog.\"$_\"[]") } @types;
	my $set = join ', ', map { "$columns[$_] = \$" . ($_ + 2) } 0 .. $#columns;
	both($i, "PREPARE put (bigint, $types) AS UPDATE kinds SET $set WHERE id = \$1",
		map { "EXECUTE put ($_, " . join(', ', @v) . ')' } 12, 22, 32);
}
assert_same('kinds', 'UPDATE with parameters');
both($_, "DELETE FROM kinds WHERE id = ${_}2", 'DELETE FROM kinds WHERE id = 16') foreach 1 .. 3;
assert_same('kinds', 'DELETE');

# ------------------------------------------------ types of users, changed columns

$c->sql($_, q{CREATE TYPE public.mood AS ENUM ('sad', 'glad');
	CREATE DOMAIN public.cents AS numeric(20, 2) CHECK (VALUE >= 0);
	CREATE TYPE public.money_of AS (amount public.cents, mood public.mood, tags text[]);
	CREATE TYPE public.moods AS RANGE (subtype = public.mood);
	CREATE DOMAIN public.names AS text[] CHECK (cardinality(VALUE) < 5)}) foreach 3, 1, 2;
# the numbers of these types are not the same on all nodes
$c->sql(2, q{ALTER TYPE public.mood ADD VALUE 'calm' BEFORE 'glad'});
$c->sql($_, q{ALTER TYPE public.mood ADD VALUE 'calm' BEFORE 'glad'}) foreach 1, 3;
make_table('shaped', q{gone int, id uuid, m public.mood, ms public.mood[], price public.cents NOT NULL DEFAULT 1,
	what public.money_of, whats public.money_of[], r public.moods, mr public.moods_multirange, n public.names,
	twice numeric GENERATED ALWAYS AS (price * 2) STORED, was text, code varchar(5), fixed char(4), PRIMARY KEY (id)},
	"'id'", q{ALTER TABLE shaped DROP COLUMN was; ALTER TABLE shaped ADD COLUMN extra jsonb DEFAULT '{"a": 1}';
	ALTER TABLE shaped DROP COLUMN gone; ALTER TABLE shaped ADD COLUMN sum numeric GENERATED ALWAYS AS (price + 1) STORED});
foreach my $i (1 .. 3)
{
	both($i, qq{INSERT INTO shaped (id, m, ms, price, what, whats, r, mr, n, code, fixed)
		VALUES ('00000000-0000-0000-0000-00000000000$_', 'calm', '{sad,NULL,calm}', $_.5, ROW(3, 'sad', '{a,NULL}'),
		ARRAY[ROW(NULL, 'glad', NULL), NULL]::public.money_of[], '[sad,calm]', '{[sad,sad]}', '{x,y}', 'ab', 'cd')}) foreach 3 * $i, 3 * $i - 1;
	both($i, qq{INSERT INTO shaped (id) VALUES ('00000000-0000-0000-0000-0000000000a$i')});
}
assert_same('shaped', 'types of users: INSERT');
foreach my $i (1 .. 3)
{
	both($i, qq{UPDATE shaped SET price = price + 1, m = 'glad', what.mood = 'glad', extra = extra || '{"b": null}', r = NULL WHERE id = '00000000-0000-0000-0000-00000000000$_'}) foreach 3, 5;
	both($i, qq{INSERT INTO shaped (id, price) VALUES ('00000000-0000-0000-0000-0000000000a1', 7) ON CONFLICT (id) DO UPDATE SET price = shaped.price + excluded.price});
}
both(2, q{DELETE FROM shaped WHERE id = '00000000-0000-0000-0000-0000000000a2'});
assert_same('shaped', 'types of users: UPDATE, upsert, DELETE');

# ------------------------------------------------ values of 1 MB

make_table('big', q{k int, part text, packed text, plain text, raw bytea, doc jsonb, n int, PRIMARY KEY (k, part)}, "'k', 'part'",
	'ALTER TABLE big ALTER plain SET STORAGE EXTERNAL');
my $mb = q{(SELECT string_agg(md5(g::text), '') FROM generate_series(%d, %d) g)};
my $one = sprintf $mb, 1, 32768;
my $two = sprintf $mb, 100001, 132768;
foreach my $i (1 .. 3)
{
	my $value = join '', map { chr(97 + ($_ * 7 + $i) % 26) } 1 .. 1_000;
	both($i, qq{INSERT INTO big VALUES ($i, 'literal', repeat('x', 1048576), repeat('$value', 1049), decode(repeat('00ff', 524288), 'hex'), to_jsonb(repeat('$value', 1049)), 0)});
	# random, so that it is not compressed away: computed at the client's node
	my $text = $c->sql(1, "SELECT $one");
	both($i, qq{INSERT INTO big VALUES ($i, 'random', '$text', '$text', '$text', to_jsonb('$text'::text), 0)});
}
assert_same('big', '1 MB: INSERT');
foreach my $i (1 .. 3)
{
	both($i, map { "UPDATE big SET n = n + 1 WHERE k = $_ AND part = 'random'" } 1 .. 3);
}
assert_same('big', '1 MB: UPDATE of another column');
my $text = $c->sql(1, "SELECT $two");
both($_, qq{UPDATE big SET packed = '$text', doc = NULL, raw = raw || '\\x00' WHERE k = $_ AND part = 'literal'}) foreach 1 .. 3;
both($_, qq{INSERT INTO big VALUES ($_, 'random', 'x', '$text') ON CONFLICT (k, part) DO UPDATE SET plain = excluded.plain}) foreach 1 .. 3;
assert_same('big', '1 MB: UPDATE and upsert');
both($_, qq{DELETE FROM big WHERE k = $_ AND part = 'random'}) foreach 1, 2;
assert_same('big', '1 MB: DELETE');

# ------------------------------------------------ each type of key

my %key = (
	bigint => [ '-9223372036854775808', '0', '42', '5000000000', '9223372036854775807' ],
	int => [ '-2147483648', '-1', '0', '42', '2147483647' ],
	smallint => [ '-32768', '-1', '0', '42', '32767' ],
	uuid => [ map { sprintf "'%08d-0000-4000-8000-000000000000'", $_ } 0 .. 4 ],
	text => [ "''", q{E'\u00e4'}, q{'a''b'}, q{E'a\\nb'}, "'A'" ],
	'text COLLATE "C"' => [ "''", q{E'\u00e4'}, q{'a''b'}, q{E'a\\nb'}, "'A'" ],
	'varchar(20)' => [ "''", "'a '", "'a'", "'B'", "'nul'" ]);
my $n = 0;
foreach my $type (sort keys %key)
{
	my $table = 'key' . ++$n;
	make_table($table, "k $type PRIMARY KEY, v int", "'k'");
	make_table("two_$table", "v int, b $type, a int, PRIMARY KEY (a, b)", "'a', 'b'");
	foreach my $k (0 .. $#{ $key{$type} })
	{
		my ($i, $j) = ($k % 3 + 1, ($k + 1) % 3 + 1);
		my $value = $key{$type}[$k];
		both($i, "INSERT INTO $table VALUES ($value, $k); INSERT INTO two_$table VALUES ($k, $value, 1)");
		both($j, "UPDATE $table SET v = v + 10 WHERE k = $value; UPDATE two_$table SET v = v + 10 WHERE b = $value AND a = 1");
		both($i, "INSERT INTO $table VALUES ($value, 7) ON CONFLICT (k) DO UPDATE SET v = $table.v + excluded.v") if $k < 4;
		both($j, "DELETE FROM $table WHERE k = $value; DELETE FROM two_$table WHERE a = 1 AND b = $value") if $k == 2;
	}
	assert_same($table, "key $type");
	assert_same("two_$table", "key int, $type");
}

# ------------------------------------------------ what belongs to one server

$c->sql(1, q{CREATE TABLE known (k int PRIMARY KEY); SELECT payshard.create_distributed_table('known', 'k')});
$c->sql($_, q{CREATE DOMAIN public.tables AS regclass[]; CREATE TYPE public.of_tables AS (a int, t public.tables)}) foreach 1 .. 3;
foreach my $type (@refused, 'public.of_tables[]', 'public.tables')
{
	my ($status, $out, $err) = $c->try_sql(1, "BEGIN; CREATE TABLE unknown (k int PRIMARY KEY, c $type); SELECT payshard.create_distributed_table('unknown', 'k')");
	like($err, qr/0A000: column "c" cannot be in a distributed table\n.*DETAIL:  It holds values of type \S+, which mean.*HINT:  Use text/s, "a column of type $type is refused");
	($status, $out, $err) = $c->try_sql(1, "ALTER TABLE known ADD COLUMN c $type");
	like($err, qr/0A000: column "c" cannot be in a distributed table/, '... later, too');
}
is($c->sql($_, q{SELECT count(*) FROM pg_attribute WHERE attrelid = 'known'::regclass AND attnum > 0}), '1', "node $_ is as before") foreach 1 .. 3;

done_testing();
