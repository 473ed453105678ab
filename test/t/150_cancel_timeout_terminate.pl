# Somebody loses patience while a commit waits for the other copy: cancel,
# statement_timeout, terminate, fast shutdown (W7).  Whoever is told "aborted" is
# aborted on all nodes; who cannot be told gets 08007 or a lost connection.
#
# Method: the receiver at the secondary stands still at a fault point; the
# transaction is seen waiting; then it happens.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => <<'CONF');
payshard.peer_timeout = 3s
payshard.commit_timeout = 20s
payshard.shutdown_timeout = 8s
CONF
my $p = PayshardPayments->new($c);
my ($account) = $p->accounts_between(1, 2);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1, 2;

# A payment that waits for node 2; the id of its transaction's backend.
sub waiting_payment
{
	my ($before) = @_;
	$c->sql(2, "SELECT payshard_fault.arm('receiver.before_journal', 'pause')");
	$p->start(1, 1, accounts => [$account], before => $before);
	$c->wait_sql(2, "SELECT payshard_fault.paused('receiver.before_journal')");
	return $c->wait_until('the payment to wait', 20, sub {
			return $c->sql(1, "SELECT pid FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'"); });
}

sub let_go { return $c->sql(2, "SELECT payshard_fault.disarm('receiver.before_journal')"); }

sub last_outcome
{
	my $id = $p->{next_id} - 1;
	return "$p->{outcome}{$id} " . ($p->{state}{$id} // '');
}

# Cancel while node 2 stands still: the abort waits until node 2 is out of the map.
my $pid = waiting_payment();
$c->sql(1, "SELECT pg_cancel_backend($pid)");
$p->finish;
is(last_outcome(), 'aborted 57014', 'cancelled while the copy does not answer: told aborted');
let_go();
$p->assert_kept('cancelled, the copy left');

# Cancel, and node 2 goes on at once: it journals the entry and the abort.
$pid = waiting_payment();
$c->sql(1, "SELECT pg_cancel_backend($pid)");
let_go();
$p->finish;
like(last_outcome(), qr/^(?:aborted 57014|ok )$/, 'cancelled, the copy answers: ' . last_outcome());
$p->assert_kept('cancelled, the copy answers');

# statement_timeout fires as a cancel; inside the commit it must not be taken for more.
waiting_payment("SET statement_timeout = '700ms';\n");
$p->finish;
like(last_outcome(), qr/^(?:aborted 57014|ok )$/, 'statement_timeout during the commit: ' . last_outcome());
let_go();
$p->assert_kept('statement_timeout');

# Terminate: the outcome is waited for; the client may not hear it.
$pid = waiting_payment();
$c->sql(1, "SELECT pg_terminate_backend($pid)");
$p->finish;
note('terminated: ' . last_outcome());
let_go();
$p->assert_kept('terminated');

# Cancel inside a transaction with many payments, by every client at once, under load.
$p->start(1, 80) foreach 1 .. 4;
foreach my $i (1 .. 15)
{
	$c->sql(1, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'");
}
$p->finish;
$p->assert_kept('cancelled at random moments');

# The same with terminate.
$p->start(1, 400) foreach 1 .. 4;
$c->wait_sql(1, "SELECT count(*) >= 1 FROM pg_stat_activity WHERE query LIKE 'WITH p%'");
$c->sql(1, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'WITH p%'");
$p->finish;
$p->assert_kept('terminated at random moments');

# Fast shutdown under load: what was under way ends, nothing is unknown to the copies.
$p->start(1, 400) foreach 1 .. 4;
$c->wait_sql(1, "SELECT count(*) >= 1 FROM pg_stat_activity WHERE query LIKE 'WITH p%'");
$c->stop(1, 'fast');
$p->finish;
$c->start(1);
$p->assert_kept('fast shutdown under load');

# Fast shutdown while a commit waits for a copy that does not answer.
waiting_payment();
$c->stop(1, 'fast');
$p->finish;
let_go();
$c->start(1);
$p->assert_kept('fast shutdown while a commit waits');

# A commit that cannot have its outcome: the copy and the witness are gone.  08007, and
# the node serves nothing until a majority is back; then F1 finds out.
$c->node(1)->append_conf('postgresql.conf', "payshard.commit_timeout = 2s\npayshard.abort_timeout = 2s\n");
$c->sql(1, 'SELECT pg_reload_conf()');
$c->wait_sql(1, "SELECT current_setting('payshard.abort_timeout') = '2s'");
$c->kill9(3);
$c->kill9(2);
$p->start(1, 2, accounts => [$account]);
$p->finish;
my @last = map { "$p->{outcome}{$_} " . ($p->{state}{$_} // '') } $p->{next_id} - 2, $p->{next_id} - 1;
is($last[0], 'unknown 08007', 'no copy, no majority: 08007');
is($last[1], 'aborted 57P03', 'then the node serves nothing');
$c->start($_) foreach 2, 3;
$p->assert_kept('no copy, no majority');

done_testing();
