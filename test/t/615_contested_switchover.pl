# Who gives its shards away keeps its lease, also when somebody else's map came between.
#
# Node 1 proposes a switchover; its map is accepted at node 1 alone.  Before it tries
# again, node 2 proposes a map of its own: it finds that of node 1, takes it up, and is
# refused by all who have promised node 1 a lease, who from then on promise it
# nothing, so that node 2 may have its way.  Then node 1 goes on, and its map is
# chosen: now it must be promised its lease again, and not only after twice
# payshard.lease_timeout (40 s here), or it would stand still for all clients.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IPC::Run;
use PayshardCluster;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, replicas => 2, shards => 8, auto => 1, conf => <<'CONF');
payshard.lease_timeout = 20s
payshard.call_timeout = 60s
payshard.switchover_pause = 60s
payshard.switchover_timeout = 120s
CONF
$c->sql(1, 'CREATE TABLE accounts (id bigint PRIMARY KEY)');
$c->sql(1, "SELECT payshard.create_distributed_table('accounts', 'id')");
$c->wait_all_in_sync;
my $mine = $c->sql(1, "SELECT count(*) FROM payshard.shards WHERE primary_node = 'n1'");
cmp_ok($mine, '>', 0, 'node 1 is primary of some shards');

# How long node 1 is still promised its lease by the others; without a break it is nearly 18 s.
my $promised = 'SELECT min(granted_ms) FROM payshard.leases WHERE NOT is_self';
ok($c->wait_sql(1, "SELECT ($promised) > 15000", 30), 'node 1 is promised its lease');

# Asks a node in the background: [handle, output].
sub begin
{
	my ($i, $query) = @_;
	my $out = '';
	return [ IPC::Run::start([ 'psql', '-XAtq', '-d', $c->node($i)->connstr('postgres'), '-c', $query ], '>&', \$out), \$out ];
}

sub succeeds
{
	my ($asked, $name) = @_;
	ok($asked->[0]->finish, $name) || diag(${ $asked->[1] });
	return;
}

$c->arm_fault($_, 'acceptor.before_accept', 'error') foreach 2, 3;
$c->arm_fault(1, 'proposer.after_accept', 'pause');
my $switchover = begin(1, "SELECT * FROM payshard.switchover('n1')");
ok($c->wait_sql(1, "SELECT payshard_fault.paused('proposer.after_accept')", 30), 'the map of node 1 is accepted at node 1 alone');

my $other = begin(2, "SELECT payshard.set_node('n3', zone => 'elsewhere')");
ok($c->wait_sql(1, "SELECT ($promised) < 15000", 30), 'node 2 wants its turn: node 1 is promised nothing more');
$c->sql(1, "SELECT payshard_fault.disarm('proposer.after_accept')");
succeeds($switchover, 'the switchover comes to its end');
succeeds($other, 'and the map of node 2, too');
is($c->sql(2, "SELECT count(*) FROM payshard.shards WHERE primary_node = 'n1'"), 0, 'node 1 has given its shards away');
ok($c->wait_sql(1, "SELECT ($promised) > 15000", 10), 'node 1 is promised its lease again at once');
done_testing();
