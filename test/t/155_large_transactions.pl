# Transactions of many fragments (W2, W7): one that is told "aborted" leaves nothing on
# any copy, however many local transactions its entry is applied in; one that is
# terminated while its fragments are on their way does not hold up the others.
#
# Method: an entry of more journal rows than are applied at once, aborted when all
# copies have it; then an entry that does not fit into the queue, which the copy does not take.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => <<'CONF');
payshard.batch_size = 1kB
payshard.queue_size = 24MB
payshard.peer_timeout = 60s
payshard.call_timeout = 60s
payshard.gate_timeout = 20s
CONF
my $p = PayshardPayments->new($c);
my ($account) = $p->accounts_between(1, 2);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1, 2;

# A statement that writes about n times 200 kB.
sub large_payments
{
	my ($n) = @_;
	return "INSERT INTO payments SELECT $account, i, 1, repeat('x', 200000) FROM generate_series(1000001, 1000000 + $n) i";
}

$p->wait_journals_empty;
$c->sql(1, "SELECT payshard_fault.arm('commit.after_acks', 'error')");
my ($status, $out, $err) = $c->try_sql(1, large_payments(80));
isnt($status, 0, 'an error when all copies have the entry: the client is told');
unlike($err, qr/08007/, 'and its outcome is known');
$p->wait_journals_empty;
is($c->sql($_, "SELECT count(*) FROM " . $p->copy('payments', $account)), 0, "node $_ has nothing of it") foreach 1, 2;
$p->assert_kept('aborted in many fragments');

# Terminated amid its fragments.
$c->sql(2, "SELECT payshard_fault.arm('receiver.before_journal', 'pause')");
my $client = $c->node(1)->background_psql('postgres', on_error_stop => 0);
$client->query_until(qr/begun/, "\\echo begun\n" . large_payments(200) . ";\n");
my $pid = $c->wait_until('the writer to wait for room', 60, sub {
		return $c->sql(1, "SELECT pid FROM pg_stat_activity WHERE query LIKE 'INSERT INTO payments SELECT%' "
			  . "AND state = 'active' AND wait_event_type = 'Extension' AND pid <> pg_backend_pid()"); });
$c->sql(1, "SELECT pg_terminate_backend($pid)");
$c->sql(2, "SELECT payshard_fault.disarm('receiver.before_journal')");
$c->wait_sql(1, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
eval { $client->quit };
($status, $out, $err) = $c->try_sql(1, "INSERT INTO payments VALUES ($account, 2000001, 1, ''); DELETE FROM payments WHERE id = 2000001 AND account_id = $account");
is($status, 0, 'the next commit is not held up') || diag($err);
$p->assert_kept('terminated amid its fragments');

done_testing();
