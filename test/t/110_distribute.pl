# DDL on distributed tables happens on all nodes or on none (R4).
#
# Three nodes, one of them a witness.  Tables with rows are distributed and
# taken back; rows are where the map says, on every copy; numbers stay unique;
# users' DDL reaches every node, also with savepoints; it is refused, and
# leaves nothing, while a node is down; what a coordinator that died has left
# prepared is settled by asking it; a node added later gets all tables.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PayshardCluster;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, replicas => 2, shards => 16, witness => [3]);

$c->sql(1, q{CREATE TABLE account (id bigint PRIMARY KEY, balance numeric NOT NULL DEFAULT 0);
	INSERT INTO account SELECT g, g FROM generate_series(1, 1000) g;
	SELECT payshard.create_distributed_table('account', 'id')});
$c->sql(2, q{CREATE TABLE payment (account_id bigint REFERENCES account, id bigserial, note text, PRIMARY KEY (account_id, id));});
my ($status, $out, $err) = $c->try_sql(2, q{SELECT payshard.create_distributed_table('payment', 'account_id')});
is($status, 0, 'a table is distributed from the second node') or diag($err);

# Rows of one partition as a node itself holds them, whatever is routed.
sub held
{
	my ($i, $table) = @_;
	return $c->sql($i, "SELECT string_agg(s || ':' || (SELECT count(*) FROM payshard.peer_rows('public.$table', s)), ' ' ORDER BY s) FROM generate_series(0, 15) s");
}
is(held(1, 'account'), held(2, 'account'), 'both data nodes hold the same rows of every shard');
is($c->sql(1, q{SELECT sum((SELECT count(*) FROM payshard.peer_rows('public.account', s))) FROM generate_series(0, 15) s}), '1000', 'no row is lost or doubled');
is($c->sql(3, q{SELECT sum((SELECT count(*) FROM payshard.peer_rows('public.account', s))) FROM generate_series(0, 15) s}), '0', 'the witness holds none');

my @numbers = map { $c->sql($_, q{SELECT string_agg((nextval('payment_id_seq') % 64)::text, ',') FROM generate_series(1, 3)}) } 1 .. 3;
is(join(' ', @numbers), '1,1,1 2,2,2 3,3,3', 'each node numbers in a residue class of its own');

# DDL by users, from each kind of node
$c->sql(1, q{ALTER TABLE payment ADD COLUMN made date DEFAULT '2026-01-01'});
$c->sql(2, q{CREATE INDEX payment_note ON payment (note)});
$c->sql(3, q{COMMENT ON TABLE payment IS 'by the witness'});
$c->sql(1, q{BEGIN; SAVEPOINT a; ALTER TABLE payment ADD COLUMN never int; ROLLBACK TO a; ALTER TABLE payment ADD COLUMN kept int; COMMIT});
($status, $out, $err) = $c->try_sql(1, q{BEGIN; ALTER TABLE payment ADD COLUMN a int; SAVEPOINT a; ALTER TABLE payment ADD COLUMN b int; ROLLBACK TO a; COMMIT});
like($err, qr/0A000.*partly rolled back to a savepoint/, 'what cannot be rolled back in part is refused as a whole');
my $shape = q{SELECT string_agg(attname, ',' ORDER BY attnum) || ' ' || obj_description('payment'::regclass) || ' ' ||
	(SELECT count(*) FROM pg_indexes WHERE indexname = 'payment_note') FROM pg_attribute WHERE attrelid = 'payment'::regclass AND attnum > 0};
is($c->sql($_, $shape), 'account_id,id,note,made,kept by the witness 1', "node $_ has what was committed and nothing else") for 1 .. 3;

# An error on another node undoes all of it.
$c->sql(2, q{CREATE TABLE only_there (id bigint PRIMARY KEY)});
($status, $out, $err) = $c->try_sql(1, q{CREATE TABLE only_there (id bigint PRIMARY KEY); SELECT payshard.create_distributed_table('only_there', 'id')});
like($err, qr/42P07: table "only_there" cannot be made on node "n2"\nDETAIL:  There: relation "only_there" already exists/, 'a table of that name on another node: refused');
like($err, qr/node "n2"/, '... and the node is named');
is($c->sql($_, q{SELECT count(*) FROM payshard.distributed_table}), '2', "nothing is left on node $_") for 1 .. 3;

# A node is down.
$c->kill9(3);
($status, $out, $err) = $c->try_sql(1, q{ALTER TABLE payment ADD COLUMN late int});
like($err, qr/node "n3" cannot be reached/, 'DDL is refused while a node is down, and says which');
$c->start(3);
$c->wait_sql(1, q{SELECT count(*) = 0 FROM pg_attribute WHERE attrelid = 'payment'::regclass AND attname = 'late'}, 10);

# A coordinator died between PREPARE and COMMIT PREPARED: its row in ddl_log decides.
my $self = $c->sql(1, q{SELECT node_id FROM payshard.node_self});
foreach my $case ([ 'committed', 1 ], [ 'lost', 0 ])
{
	my ($name, $is_committed) = @$case;
	my $gid = "payshard_ddl_${self}_1_$name";
	$c->sql(2, qq{BEGIN; SELECT payshard.peer_ddl_begin('$gid', 'postgres', 'test'); CREATE TABLE left_$name (k int); PREPARE TRANSACTION '$gid'});
	$c->sql(1, qq{INSERT INTO payshard.ddl_log (gid, committed, statement) VALUES ('$gid', true, 'test')}) if $is_committed;
	$c->wait_sql(2, q{SELECT count(*) = 0 FROM pg_prepared_xacts}, 30);
	is($c->sql(2, qq{SELECT count(*) FROM pg_class WHERE relname = 'left_$name'}), "$is_committed", "left prepared, $name: settled as the coordinator says");
}

# A node that comes later has all tables.
my $new = $c->new_server;
$c->add_node($new, weight => 1);
is($c->sql($new, $shape), 'account_id,id,note,made,kept by the witness 1', 'a new node has the tables as they are now');
is($c->sql($new, q{SELECT nextval('payment_id_seq') % 64}), "$new", '... and numbers in its own residue class');

# And back.
$c->sql(2, q{ALTER TABLE payment DROP CONSTRAINT payment_account_id_fkey});
$c->sql(1, q{SELECT payshard.undistribute_table('account')});
is($c->sql(1, q{SELECT count(*) || ' ' || sum(balance) FROM account}), '1000 500500', 'all rows come back');
is($c->sql(2, q{SELECT count(*) FROM pg_class WHERE relname LIKE '%account%' AND relkind IN ('r', 'p')}), '0', '... and nothing stays elsewhere');
$c->sql(2, q{DROP TABLE payment});
is($c->sql($_, q{SELECT count(*) FROM pg_class WHERE relnamespace = 'payshard_data'::regnamespace}), '0', "DROP TABLE reached node $_") for 1 .. 3, $new;

done_testing();
