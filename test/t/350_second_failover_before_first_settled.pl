# A second primary is lost before the first is settled (F4, the last sentences):
# undecided entries of both are united; no acknowledged payment is lost.
#
# Method: three copies of each shard and two witnesses.  A payment is acknowledged
# by A, but neither copy has heard that it is decided; A dies; the leader B of its
# recovery dies before the union is journaled; C recovers both.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 5, replicas => 3, witness => [ 4, 5 ], shards => 8,
	conf => "payshard.peer_timeout = 700ms\npayshard.call_timeout = 2s\n");
my $p = PayshardPayments->new($c);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;

foreach my $point (qw(settle.before_tails settle.after_tails settle.after_journal settle.after_apply))
{
	my ($a) = grep { $p->accounts_at($_) } 1 .. 3;
	my ($b, $d) = grep { $_ != $a } 1 .. 3;
	my ($account) = $p->accounts_at($a);

	# acknowledged, and the word "decided" does not get out: both senders stand still after the ack
	$p->wait_journals_empty;
	$c->sql($a, "SELECT payshard_fault.arm('commit.after_local', 'pause')");
	$p->start($a, 1, accounts => [$account]);
	$c->wait_sql($a, "SELECT payshard_fault.paused('commit.after_local')");
	my $in_journal = join ',', map { $c->sql($_, 'SELECT count(*) FROM payshard.journal') } $b, $d;
	is($in_journal, '1,1', "$point: both copies have it journaled, undecided");
	$c->kill9($a, all => 1);
	$p->finish;
	my $id = $p->{next_id} - 1;
	# committed at the dead primary: whoever asked it before it died has seen the payment
	$p->{outcome}{$id} = 'ok';

	$c->sql($b, "SELECT payshard_fault.arm('$point', 'panic')");
	my ($status, $out, $err) = $c->try_sql($b, "SELECT payshard.failover('n$a')");
	isnt($status, 0, "$point: the leader of the first recovery dies");
	$c->wait_down($b);
	($status, $out, $err) = $c->try_sql($d, "SELECT payshard.failover('n$b')", timeout => 90);
	is($status, 0, "$point: the second failover ends") || diag($err);
	my @lines = split /\n/, $c->sql($d, 'SELECT l FROM ' . $p->copy('payments', $account) . ' l');
	is(scalar(grep { (split /\t/)[1] == $id } @lines), 1, "$point: the last copy has the payment");
	is(scalar($p->pay($d, $account)), 'ok', "$point: open with one copy") || diag($p->{last_error});
	$c->start($_) foreach $a, $b;
	$p->assert_kept($point) or last;
}
done_testing();
