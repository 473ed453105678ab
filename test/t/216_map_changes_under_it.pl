# What fails only because the map has changed under it is worth another try, and the client
# is told so (40001), or nothing at all; never that it is not supported (0A000) or that
# this is no node (55000): those it would take for final.
#
# Method: three nodes, two copies; a client at one of them, shards of the two others.
# (a) A payment is paused amid its planning, its shard goes to the other node: it is taken.
# (b) A transaction in REPEATABLE READ has read a shard, which goes to the other node.
# (c) A transaction that has written here needs a shard that was here when it began; begun
#	  again it hears the truth, 0A000.
# (d) A payment at its primary is paused in the trigger; the node is deposed meanwhile.
# (e) A node has started, and knows who it is but not its map: a payment waits.
use strict;
use warnings;
use IPC::Run ();
use PayshardCluster;
use PayshardPayments;
use Test::More;

plan skip_all => 'needs a build with PAYSHARD_FAULTS=1' unless $ENV{PAYSHARD_FAULTS};

my $c = PayshardCluster->new(nodes => 3, shards => 16);
my $p = PayshardPayments->new($c);

# psql commands that move an account's shard, for use in a script.
sub moves
{
	my ($account, $to) = @_;
	my $at = $c->node($p->primary_of($account))->connstr('postgres');
	return qq{\\! psql -XAtq -d "$at" -c "SELECT count(*) FROM payshard.switchover($p->{shard}{$account}, 'n$to')"};
}

# The answers to a script at a node, errors as their SQLSTATE.
sub session
{
	my ($node, $script) = @_;
	my $out = '';
	IPC::Run::run([ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $c->node($node)->connstr('postgres') ],
		'<', \$script, '&>', \$out);
	$out =~ s/^psql:<stdin>:\d+: //mg;
	return $out;
}

# (a)
my ($account) = $p->accounts_between(2, 1);
my $shard = $p->{shard}{$account};
$c->arm_fault(3, 'route.found', 'pause');
$p->start(3, 1, accounts => [$account]);
$c->wait_sql(3, "SELECT payshard_fault.paused('route.found')");
$c->sql(2, "SELECT count(*) FROM payshard.switchover($shard, 'n1')");
$c->wait_sql(3, "SELECT primary_node = 'n1' FROM payshard.shards WHERE shard = $shard");
$c->sql(3, "SELECT payshard_fault.disarm('route.found')");
$p->finish;
is(join(', ', values %{ $p->{state} }), '', 'planned amid two maps: planned again, and taken');

# (b)
my $read = "SELECT count(*) FROM accounts WHERE id = $account;";
is(session(3, "BEGIN ISOLATION LEVEL REPEATABLE READ;\n$read\n" . moves($account, 2) . "\n$read\nROLLBACK;\n$read\n"),
	"1\n1\nERROR:  40001\n1\n", 'REPEATABLE READ, and its shard goes to another node: to be tried again');

# (c)
my ($stays, $leaves) = $p->accounts_between(1, 2);
my @pay = map { "UPDATE accounts SET balance = balance WHERE id = $_;" } $stays, $leaves;
die 'of one shard' if $p->{shard}{$stays} == $p->{shard}{$leaves};
is(session(1, "BEGIN;\n$pay[0]\n" . moves($leaves, 2) . "\n$pay[1]\nROLLBACK;\nBEGIN;\n$pay[0]\n$pay[1]\nROLLBACK;\n"),
	"1\nERROR:  40001\nERROR:  0A000\n", 'two shards that were here, and are at two nodes: to be tried again, then not supported');
($stays, $leaves) = $p->accounts_between(2, 3);
die 'of one shard' if $p->{shard}{$stays} == $p->{shard}{$leaves};
@pay = map { "UPDATE accounts SET balance = balance WHERE id = $_;" } $stays, $leaves;
is(session(1, "BEGIN;\n$pay[0]\n" . moves($leaves, 3) . "\n$pay[1]\nROLLBACK;\nBEGIN;\n$pay[0]\n$pay[1]\nROLLBACK;\n"),
	"1\nERROR:  40001\nERROR:  0A000\n", 'two shards that were at one other node: the same');

# (d)
($account) = $p->accounts_between(1, 2);
$shard = $p->{shard}{$account};
$c->arm_fault(1, 'capture.row', 'pause');
$p->start(1, 1, accounts => [$account]);
$c->wait_sql(1, "SELECT payshard_fault.paused('capture.row')");
$c->sql(2, "SELECT count(payshard.failover('n1', force => true))");
$c->wait_sql(1, "SELECT primary_node = 'n2' FROM payshard.shards WHERE shard = $shard");
$c->sql(1, "SELECT payshard_fault.disarm('capture.row')");
$p->finish;
is(join(', ', values %{ $p->{state} }), '40001', 'deposed amid a statement: to be tried again');
%{ $p->{state} } = ();
$c->wait_all_in_sync;

# (e)
$c->sql(2, 'CREATE EXTENSION IF NOT EXISTS payshard_fault');
$c->stop(2);
my $faults = $c->node(2)->data_dir . '/payshard_fault.conf';
open my $file, '>', $faults or die "$faults: $!";
print $file "map.before_load pause 1\n";
close $file;
chmod 0644, $faults;
$c->start(2);
$c->wait_sql(2, "SELECT payshard_fault.paused('map.before_load')");
$p->start(2, 1, accounts => [$account], before => "SET application_name = 'early';\n");
$c->wait_until('the payment to wait or to fail', 60, sub {
		return $c->sql(2, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'early' AND wait_event_type = 'Extension'")
		  || PayshardPayments::is_through($p->{clients}[0]);
	});
unlink $faults;
$c->sql(2, "SELECT payshard_fault.disarm('map.before_load')");
$p->finish;
is(join(', ', grep { $_ ne '57P03' } values %{ $p->{state} }), '', 'a node that has started and not read its map yet: the payment waits');
$c->wait_started(2);
$p->assert_kept('at the end');
done_testing();
