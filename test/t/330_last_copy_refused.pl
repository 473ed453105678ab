# The only copy in sync of a shard is never given up: failover() of its node is
# refused and says which shards would be lost (F4); partial => true fails over
# the rest only; the node itself, when it is back, has everything.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 8, conf => "payshard.peer_timeout = 700ms\n");
my $p = PayshardPayments->new($c);

# Node 2 is out; shards between 1 and 2 then live on node 1 only.
$c->kill9(2);
my @only_1 = $p->accounts_between(1, 2);
is(scalar($p->pay(1, $only_1[0])), 'ok', 'a payment with one copy') || diag($p->{last_error});
$p->start(1, 20, accounts => [@only_1]);
$p->finish;
$c->kill9(1, all => 1);
$c->start(2);
my ($status, $out, $err) = $c->try_sql(3, "SELECT payshard.failover('n1')");
like($err, qr/55000: failing over node "n1" would lose acknowledged transactions/, 'failover of the last copy is refused');
my %shards = map { $p->{shard}{$_} => 1 } @only_1;
my $one = (sort { $a <=> $b } keys %shards)[0];
like($err, qr/DETAIL:.*only copy in sync of \d+ shards?: .*\b$one\b/, 'it says which shards');
$c->start(1);
$p->assert_kept('the last copy came back');

# Partial: shards with another copy in sync go on.
$c->kill9(2);
is(scalar($p->pay(1, $only_1[0])), 'ok', 'a payment with one copy') || diag($p->{last_error});
$c->wait_until('node 2 to be out everywhere', 30, sub {
		return !grep { $_->[1] == 2 && $_->[2] eq 'f' && $_->[3] eq 'in_sync' } $p->placements(3); });
$c->kill9(1, all => 1);
$c->start(2);
my @between_1_3 = $p->accounts_between(1, 3);
SKIP:
{
	skip 'no shard between 1 and 3', 2 unless @between_1_3;
	$c->sql(3, "SELECT payshard.failover('n1', partial => true)");
	is(scalar($p->pay(3, $between_1_3[0])), 'ok', 'partial: a shard with another copy takes payments') || diag($p->{last_error});
	isnt(scalar($p->pay(3, $only_1[0])), 'ok', 'partial: a shard whose only copy is away does not');
}
$c->start(1);
$p->assert_kept('partial failover, the last copy came back');
done_testing();
