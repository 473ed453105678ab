# A transaction is whole or not there (F4), also when its primary is failed over in
# part: one shard it wrote goes to another node, the other stays with the lost node,
# which holds the only copy in sync.
#
# Method: node 2 is out; node 1 dies when node 3 has journaled the transaction and node 1
# has not committed it; node 3 takes over what it can; node 1 comes back.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 16, conf => "payshard.peer_timeout = 700ms\n");
my $p = PayshardPayments->new($c);
$c->sql(1, 'CREATE EXTENSION payshard_fault');
my ($left) = $p->accounts_between(1, 2);
my ($taken) = $p->accounts_between(1, 3);

$c->kill9(2);
is(scalar($p->pay(1, $left)), 'ok', 'a payment with one copy') || diag($p->{last_error});
$c->wait_until('node 2 to be out everywhere', 30, sub {
		return !grep { $_->[1] == 2 && $_->[2] eq 'f' && $_->[3] eq 'in_sync' } $p->placements(3); });

my ($id_left, $sql_left) = $p->payment($left);
my ($id_taken, $sql_taken) = $p->payment($taken);
$c->sql(1, "SELECT payshard_fault.arm('commit.before_local', 'panic')");
$c->try_sql(1, "BEGIN;\n$sql_left;\n$sql_taken;\nCOMMIT;");
$c->wait_down(1);
is($c->sql(3, 'SELECT count(*) FROM payshard.journal'), 1, 'the other copy has it journaled');

my $offset = $c->log_size(3);
$c->start(2);
my ($status, $out, $err) = $c->try_sql(3, "SET statement_timeout = '5s'; SELECT payshard.failover('n1', partial => true)");
isnt($status, 0, 'the outcome is not known without the lost node: its settling waits');
ok($c->wait_log(3, qr/settling node "n1" waits for the node itself/, 30, $offset), 'and says for whom');

$c->start(1);
$p->assert_kept('the lost node came back');
my @there;
foreach my $at ([ $left, $id_left ], [ $taken, $id_taken ])
{
	my ($account, $id) = @$at;
	my @lines = split /\n/, $c->sql($p->primary_of($account), 'SELECT l FROM ' . $p->copy('payments', $account) . ' l');
	push @there, scalar(grep { (split /\t/)[1] == $id } @lines);
}
is("@there", '1 1', 'both halves of the transaction are there');

done_testing();
