# A violated constraint of a distributed table is reported as that of an ordinary one:
# message, detail and the fields that programs look at (schema, table, column,
# constraint) name what the user made, wherever the row lives and however it came there.
#
# Method: the same tables in two schemas, of which one is distributed; each statement on
# both; what psql prints of the errors, verbosely, must be the same but for the schema.
use strict;
use warnings;
use PayshardCluster;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 4);
my $tables = q{
	CREATE TABLE acct (id bigint PRIMARY KEY, v int, note text NOT NULL, CONSTRAINT acct_v_positive CHECK (v > 0), UNIQUE (id, v));
	CREATE UNIQUE INDEX acct_note ON acct (id, lower(note));
};
my $more_tables = q{
	CREATE TABLE pay (acct_id bigint CONSTRAINT pay_of_acct REFERENCES acct, id int, PRIMARY KEY (acct_id, id));
	CREATE TABLE "Odd name" (id bigint PRIMARY KEY, "a ""b""" int CHECK ("a ""b""" > 0));
	CREATE FUNCTION told(statement text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE s text; t text; col text; con text; m text; d text;
	BEGIN
		EXECUTE statement;
		RETURN 'no error';
	EXCEPTION WHEN integrity_constraint_violation THEN
		GET STACKED DIAGNOSTICS s = SCHEMA_NAME, t = TABLE_NAME, col = COLUMN_NAME, con = CONSTRAINT_NAME, m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL;
		RETURN concat_ws(' | ', s, t, col, con, m, d);
	END $$;
};
$c->sql($_, 'CREATE SCHEMA spread') foreach 1 .. 3;
$c->sql(1, "CREATE SCHEMA plain; SET search_path = plain; $tables; $more_tables");
$c->sql(1, "SET search_path = spread; $tables; SELECT payshard.create_distributed_table('acct', 'id'); $more_tables;"
	. q{SELECT payshard.create_distributed_table('pay', 'acct_id'); SELECT payshard.create_distributed_table('"Odd name"', 'id')});

# What a client is told; which node said it and where in the source does not count.
sub told
{
	my ($i, $schema, $sql) = @_;
	my ($status, $out, $err) = $c->try_sql($i, "SET search_path = $schema;\n$sql");
	$err =~ s/^(?:LOCATION|CONTEXT|STATEMENT):.*(?:\n(?!(?:[A-Z ]+:|psql)).*)*\n?//mg;
	$err =~ s/^node "n\d".*\n?//mg;
	$err =~ s/\b(?:plain|spread)\b/SCHEMA/g;
	$out =~ s/\b(?:plain|spread)\b/SCHEMA/g;
	return $out . $err;
}

my %node_of = map { split /\|/ } split /\n/, $c->sql(1, "SELECT k, right(n.node, 1) FROM generate_series(1, 20) k, payshard.nodes_for('spread.acct', k::bigint) n WHERE n.is_primary");
foreach my $node (1 .. 3)
{
	my ($k) = grep { $node_of{$_} == $node } sort { $a <=> $b } keys %node_of;
	my ($other) = grep { $node_of{$_} == $node && $_ != $k } sort { $a <=> $b } keys %node_of;
	foreach my $schema (qw(plain spread))
	{
		$c->sql(1, "SET search_path = $schema; INSERT INTO acct VALUES ($k, 1, 'one'); INSERT INTO pay VALUES ($k, 1); INSERT INTO \"Odd name\" VALUES ($k, 1)");
	}
	foreach my $case (
		[ 'primary key', "INSERT INTO acct VALUES ($k, 2, 'two')", '23505' ],
		[ 'check', "INSERT INTO acct VALUES ($other, -1, 'x')", '23514' ],
		[ 'check, by UPDATE', "UPDATE acct SET v = 0 WHERE id = $k", '23514' ],
		[ 'not null', "INSERT INTO acct VALUES ($other, 1, NULL)", '23502' ],
		[ 'foreign key', "INSERT INTO pay VALUES ($other, 1)", '23503' ],
		[ 'foreign key of others', "DELETE FROM acct WHERE id = $k", '23503' ],
		[ 'primary key of two columns', "INSERT INTO pay VALUES ($k, 1)", '23505' ],
		[ 'a value that looks like a name', "INSERT INTO acct VALUES ($other, -1, '\"spread_acct_0\" spread_acct_1 acct_pkey')", '23514' ],
		[ 'a name with a space', "INSERT INTO \"Odd name\" VALUES ($k, 1)", '23505' ],
		[ 'a column with quotes', "INSERT INTO \"Odd name\" VALUES ($other, 0)", '23514' ],
		[ 'several rows', "INSERT INTO pay VALUES ($k, 2), ($k, 2)", '23505' ],
		[ 'PL/pgSQL', "SELECT told('INSERT INTO acct VALUES ($k, 2, ''two'')')", '\| acct_pkey \|' ],
		[ 'PL/pgSQL, foreign key', "SELECT told('INSERT INTO pay VALUES ($other, 1)')", '\| pay_of_acct \|' ],
		[ 'prepared', "PREPARE p AS INSERT INTO acct VALUES (\$1, 2, 'two'); EXECUTE p($k)", '23505' ])
	{
		my ($name, $sql, $state) = @$case;
		my $plain = told(1, 'plain', $sql);
		like($plain, qr/$state/, "$name: an error of an ordinary table ($state)");
		# told at node 1 whether the row is there or not
		is(told(1, 'spread', $sql), $plain, "$name, row at node $node: the same of a distributed one");
	}
}

my ($here) = grep { $node_of{$_} == 1 } keys %node_of;
foreach my $schema (qw(plain spread))
{
	$c->sql(1, "SET search_path = $schema; DELETE FROM pay WHERE acct_id = $here; DELETE FROM acct WHERE id = $here; INSERT INTO acct VALUES ($here, 3, 'three')");
}
foreach my $case (
	[ 'COPY', "COPY acct FROM STDIN;\n$here\t3\tagain\n\\.\n" ],
	[ 'a check that rows violate', 'ALTER TABLE acct ADD CONSTRAINT more CHECK (v > 100)' ],
	[ 'deferred to the end of the statement', "UPDATE acct SET id = id WHERE id = $here; INSERT INTO acct VALUES ($here, 3, 'x')" ])
{
	my ($name, $sql) = @$case;
	my $plain = told(1, 'plain', $sql);
	like($plain, qr/ERROR/, "$name: an error of an ordinary table");
	is(told(1, 'spread', $sql), $plain, "$name: the same of a distributed one");
}
done_testing();
