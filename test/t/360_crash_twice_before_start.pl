# A primary crashes with a payment that its secondary has journaled and of which
# its own WAL has nothing.  It starts, others get the lost transaction id and commit
# under it, and it crashes again before its keeper came to anything.  The
# commit log then says "committed" of the payment's id: it must not be believed (F1),
# or the payment is on the secondary only.
#
# Method: the server panics when the acks are there; the keeper of the next run is paused
# before it notes anything (start.before_boot).
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, replicas => 2, shards => 8, conf => <<'CONF');
payshard.peer_timeout = 30s
wal_writer_delay = 10s
CONF
my $p = PayshardPayments->new($c);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;
my ($a) = grep { $p->accounts_at($_) } 1 .. 3;
my ($account) = $p->accounts_at($a);

sub next_xid { return $c->sql($a, 'SELECT pg_snapshot_xmax(pg_current_snapshot())') }

sub start_paused
{
	open my $file, '>', $c->node($a)->data_dir . '/payshard_fault.conf' or die $!;
	print $file "start.before_boot pause 1\n";
	close $file;
	$c->start($a);
	$c->wait_sql($a, "SELECT payshard_fault.paused('start.before_boot')");
	return;
}

# Loses a payment at $a whose id the next run, paused, gives out again.  What else
# flushes the WAL at the wrong moment makes it try again.
sub lose_payment
{
	foreach my $try (1 .. 20)
	{
		my $xid = next_xid();
		$c->sql($a, "SELECT payshard_fault.arm('commit.after_acks', 'panic')");
		$p->start($a, 1, accounts => [$account]);
		$c->wait_down($a, 30);
		$p->finish;
		start_paused();
		if (next_xid() <= $xid)	# nor has anybody flushed the WAL in between
		{
			$c->sql($a, 'SELECT pg_current_xact_id()') foreach 1 .. 20;
			is($c->sql($a, "SELECT pg_xact_status('$xid')"), 'committed', 'a stranger has committed under the id of a lost payment');
			$c->sql($a, "SELECT pg_logical_emit_message(true, 'flush', '')");
			return;
		}
		$c->sql($a, "SELECT payshard_fault.disarm('start.before_boot')");
		$p->wait_open;
	}
	die 'no payment was lost';
}

# The run ends: by another crash, perhaps once more; after a checkpoint, which hides
# where it began; by a stop.
my %end = (
	crash => sub { $c->kill9($a, all => 1); },
	'two crashes' => sub { $c->kill9($a, all => 1); start_paused(); $c->sql($a, 'SELECT pg_current_xact_id()'); $c->kill9($a, all => 1); },
	'checkpoint and crash' => sub { $c->sql($a, 'CHECKPOINT'); $c->kill9($a, all => 1); },
	stop => sub { $c->sql($a, "SELECT payshard_fault.disarm('start.before_boot')"); $c->stop($a); },);
foreach my $how (sort keys %end)
{
	lose_payment();
	$end{$how}->();
	$c->start($a);
	$p->assert_kept("the run ended by: $how");
}

# One that has committed, and nobody knows it any more, is made again: that is no divergence.
$c->sql($a, "SELECT payshard_fault.arm('commit.after_local', 'panic')");
$p->start($a, 1, accounts => [$account]);
$c->wait_down($a, 30);
$p->finish;
start_paused();
$end{'checkpoint and crash'}->();
$c->start($a);
$p->assert_kept('a payment that had committed is made again');
is($c->sql($a, 'SELECT min(next_xid) FILTER (WHERE incarnation > 1) FROM payshard.run_end'), '0', '... as no transaction id is trusted');
is($c->sql($a, 'SELECT count(*) FROM payshard.divergent_rows'), '0', '... and found as it was');

# A run that ends before its recovery has given out nothing: what was known is known still.
my $xid = next_xid();
$c->sql($a, "SELECT payshard_fault.arm('commit.after_local', 'panic')");
$p->start($a, 1, accounts => [$account]);
$c->wait_down($a, 30);
$p->finish;
my $wal = $c->node($a)->data_dir . '/pg_wal';
rename $wal, "$wal.away" or die $!;
is($c->node($a)->start(fail_ok => 1), 0, 'it does not start without its WAL');
rename "$wal.away", $wal or die $!;
$c->start($a);
$p->assert_kept('a run that ended before its recovery');
is($c->sql($a, "SELECT next_xid > $xid FROM payshard.run_end ORDER BY incarnation DESC LIMIT 1"), 't', '... its first id is not taken for that of the run before');
done_testing();
