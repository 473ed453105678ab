# A secondary that was out gets what it missed, and only that (J1 to J4): the
# keys that changed meanwhile, once each, whatever the number of changes.
#
# Method: the log line of the rejoin says how many rows went for how many keys.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "payshard.peer_timeout = 700ms\n");
my $p = PayshardPayments->new($c);
my @mine = $p->accounts_at(1);

# [rows, keys, full copies, shards] of the rejoins of node 2 in the log of node 1 since a position
sub rejoined
{
	my ($from) = @_;
	my $log = PostgreSQL::Test::Utils::slurp_file($c->node(1)->logfile, $from);
	my @all = $log =~ /node "n2" got (\d+) rows for (\d+) dirty keys, and all rows of (\d+) of (\d+) shards/g;
	return [ @all[ -4 .. -1 ] ];
}

sub stop_2
{
	$c->stop(2);
	# node 1's own shards have one copy from now on; node 2's have no primary
	is(scalar($p->pay(1, $mine[0])), 'ok', 'a payment while the secondary is out') || diag($p->{last_error});
	return $c->log_size(1);
}

sub back
{
	my ($name, $from, $rows, $keys, $full) = @_;
	$c->start(2);
	$p->wait_in_sync;
	is_deeply([ @{ rejoined($from) }[ 0 .. 2 ] ], [ $rows, $keys, $full ], "$name: rows sent, keys, full copies");
	$p->assert_kept($name);
	is($c->sql(1, 'SELECT count(*) FROM payshard.dirty_key'), '0', "$name: no notes are left on the primary");
	is($c->sql(2, 'SELECT count(*) FROM payshard.dirty_key'), '0', "$name: no notes are left on the secondary");
	is($c->sql(2, 'SELECT count(*) FROM payshard.divergent_rows'), '0', "$name: nothing diverged");
	return;
}

# 20 payments to one account: 20 rows of payments and one account; stop_2 paid once to the same.
my $from = stop_2();
$p->pay(1, $mine[0]) foreach 1 .. 20;
back('inserts and updates', $from, 22, 22, 0);

# The same key again and again is one key; deleted rows are keys without a row; a key
# that came and went is one too; rolled back is none.
$from = stop_2();
$c->sql(1, "UPDATE accounts SET balance = balance WHERE id = $mine[1]") foreach 1 .. 5;
$c->sql(1, "INSERT INTO accounts VALUES (1000 + $_, 0); DELETE FROM accounts WHERE id = 1000 + $_")
  foreach grep { $c->sql(1, "SELECT node FROM payshard.nodes_for('accounts', (1000 + $_)::bigint) WHERE is_primary") eq 'n1' } 1 .. 4;
my $gone = $c->sql(1, "SELECT count(*) FROM payshard.dirty_key WHERE node = 2");
$c->sql(1, "BEGIN; UPDATE accounts SET balance = 0 WHERE id = $mine[2]; ROLLBACK");
is($c->sql(1, "SELECT count(*) FROM payshard.dirty_key WHERE node = 2"), $gone, 'what is rolled back is not noted');
back('updates of one key, deletes', $from, 3, $gone, 0);

# A key that changes: the old one goes, the new one comes.
$from = stop_2();
my ($to) = grep { $c->sql(1, "SELECT node FROM payshard.nodes_for('accounts', $_\::bigint) WHERE is_primary") eq 'n1' } 2000 .. 2100;
$c->sql(1, "INSERT INTO accounts VALUES ($to, 0)");
back('a new account', $from, 3, 3, 0);
$from = stop_2();
$c->sql(1, "DELETE FROM accounts WHERE id = $to");
back('an account that goes', $from, 2, 3, 0);

# More keys than payshard.dirty_keys_max: everything.
$c->node(1)->append_conf('postgresql.conf', "payshard.dirty_keys_max = 5\n");
$c->sql(1, 'SELECT pg_reload_conf()');
$from = stop_2();
$p->pay(1, $mine[0]) foreach 1 .. 10;
$c->start(2);
$p->wait_in_sync;
my $r = rejoined($from);
is($r->[2], $r->[3], 'more keys than dirty_keys_max: all shards are copied as a whole');
$p->assert_kept('full copy');

# Rebuilt by order.
$from = $c->log_size(1);
$c->sql(1, "SELECT payshard.rebuild_node('n2')");
$c->wait_log(1, 'node "n2" is in sync', 60, $from);
$r = rejoined($from);
is($r->[2], $r->[3], 'rebuild_node: all shards are copied as a whole');
$p->assert_kept('rebuilt');

# A join that is late, or of another primary, changes nothing on a node in sync.
my ($shard) = $c->sql(1, q{SELECT min(shard) FROM payshard.shards WHERE primary_node = 'n1'});
my ($incarnation) = $c->sql(2, q{SELECT incarnation FROM payshard.nodes WHERE name = 'n1'});
my $feed = q{SELECT string_agg(f::text, ' ' ORDER BY shard) FROM payshard.feed f};
my $before = $c->sql(2, $feed);
foreach my $case (
	[ "join_begin('{$shard}', 1, $incarnation, 0)", 'begun at a placement in sync', "The placement of shard $shard here is not out." ],
	[ "join_copied('{$shard}', 1, $incarnation, 0)", 'ended at a placement in sync', "The placement of shard $shard here is not joining." ],
	[ "join_begin('{$shard}', 1, $incarnation - 1, 0)", 'begun by an old incarnation', 'Its incarnation is not the newest.' ],
	[ "join_copied('{$shard}', 1, $incarnation - 1, 0)", 'ended by an old incarnation', 'Its incarnation is not the newest.' ],
	[ "join_begin('{$shard}', 3, (SELECT incarnation FROM payshard.nodes WHERE name = 'n3'), 0)", 'begun by who is not the primary', "It is not the primary of shard $shard." ])
{
	my ($call, $name, $detail) = @$case;
	my ($code, $out, $err) = $c->node(2)->psql('postgres', "SELECT payshard.peer_$call");
	like($err, qr/refuses a join that node "n\d" leads.*\Q$detail\E/s, "a join $name is refused");
}
is($c->sql(2, $feed), $before, 'such joins change no feed');
$p->pay(1, $mine[0]) foreach 1 .. 3;
$p->assert_kept('joins refused');

done_testing();
