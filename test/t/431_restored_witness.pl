# A voter whose data directory was restored from a copy has forgotten what it accepted:
# its vote does not count before it has started again as a stranger (M1, M3).
#
# Method: a witness helps to take node 2 out of the in-sync sets; its older directory is
# put back; node 2 and the witness then are a majority that knows nothing of it.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "payshard.peer_timeout = 700ms\n");
my $p = PayshardPayments->new($c);
my ($account) = $p->accounts_between(1, 2);
my $directory = $c->node(3)->data_dir;

sub run { PostgreSQL::Test::Utils::system_or_bail(@_); return; }

$c->stop(3);
run('cp', '-a', $directory, "$directory.old");
$c->start(3);
$c->wait_started(3);
$p->assert_kept('the witness is back');

$c->kill9(2);
is(scalar($p->pay(1, $account)), 'ok', 'a payment that node 2 does not have') || diag($p->{last_error});
$c->kill9(1, all => 1);
$c->stop(3);
run('rm', '-rf', $directory);
run('mv', "$directory.old", $directory);

$c->start($_) foreach 2, 3;
$c->wait_log(2, qr/the vote of node "n3" does not count/, 60);
my ($status, $out, $err) = $c->try_sql(2, "SET statement_timeout = '15s'; SELECT payshard.failover('n1')", timeout => 30);
isnt($status, 0, 'node 2 and a voter that has forgotten cannot fail over node 1');
isnt(scalar($p->pay(2, ($p->accounts_at(2, 2))[0])), 'ok', 'nor serve anything') || diag($p->{last_error});

$c->start(1);
$p->assert_kept('node 1 is back');
done_testing();
