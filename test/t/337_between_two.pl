# An entry between two others of one batch, which was not for this node, is journaled here by the
# settlement of its origin: the others are still executed, and in their order.
#
# Method: node 1 is primary of shards with a copy on node 2, and of others with one on node 3. While
# node 2 stands still, payments of the first, the second, the first kind wait, so that one batch
# brings it the first and the third; node 1 crashes when it has them.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

plan skip_all => 'needs a build with PAYSHARD_FAULTS=1' unless $ENV{PAYSHARD_FAULTS};

my $c = PayshardCluster->new(nodes => 3, shards => 16, conf => "payshard.peer_timeout = 10min\n");
my $p = PayshardPayments->new($c);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;

my @two = $p->accounts_between(1, 2);
my %two = map { $_ => 1 } @two;
my ($three) = grep { !$two{$_} } $p->accounts_between(1, 3);
my $waiting = sub { "SELECT count(*) = $_[0] FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'" };

sub crash_amid
{
	$c->sql(2, "SELECT payshard_fault.arm('receiver.before_journal', 'pause')");
	$c->sql(3, "SELECT payshard_fault.arm('receiver.before_journal', 'pause')");
	$p->start(1, 1, accounts => [ $two[0] ]);
	$c->wait_sql(2, "SELECT payshard_fault.paused('receiver.before_journal')");
	$p->start(1, 1, accounts => [ $two[1] ]);
	$c->wait_sql(1, $waiting->(2));
	$p->start(1, 1, accounts => [$three]);
	$c->wait_sql(3, "SELECT payshard_fault.paused('receiver.before_journal')");
	$p->start(1, 1, accounts => [ $two[2] ]);
	$c->wait_sql(1, $waiting->(4));
	# as long as the first is not decided, none of them is
	$c->sql(1, "SELECT payshard_fault.arm('commit.after_acks', 'pause')");
	$c->sql(2, "SELECT payshard_fault.disarm('receiver.before_journal')");
	$c->wait_sql(1, "SELECT payshard_fault.paused('commit.after_acks')");
	$c->sql(3, "SELECT payshard_fault.disarm('receiver.before_journal')");
	$c->wait_sql(2, 'SELECT count(*) > 0 FROM payshard.journal WHERE origin = 1 AND last_seq - first_seq = 2');
	$c->wait_sql(3, 'SELECT count(*) > 0 FROM payshard.journal WHERE origin = 1');
	$c->kill9(1, all => 1);
	$p->finish;
	$c->start(1);
	$c->wait_started(1);
	return;
}

crash_amid();
$p->assert_kept('an entry of others between two');

# The control: in one row with it, the two would count as done when only it is.
$c->sql(2, "SELECT payshard_fault.arm('F3.split', 'off')");
crash_amid();
$p->wait_in_sync;
$p->wait_open;
$p->wait_journals_empty;
isnt($p->violations, '', 'with the rule F3.split off, copies differ');
done_testing();
