# A primary is lost and nobody calls: the others notice, agree, wait until its
# lease has run out, and go on without it (Q1, F2 to F5).
#
# Method: two data nodes and a witness with leases and automatic failover.
# Clients pay at both; one data node is killed (kill -9), or stands still
# (SIGSTOP) and wakes up later: it must neither serve a stale read nor take a
# payment before it is a secondary.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8,
	conf => "payshard.auto_failover = on\npayshard.lease_timeout = 1500ms\n");
my $p = PayshardPayments->new($c);

sub primary_with_clients
{
	my ($node) = grep { $p->accounts_at($_) } 1 .. 2;
	return ($node, 3 - $node);
}

# All shards are open and none of them has its primary on a node, as node i sees it.
sub await_moved
{
	my ($i, $dead) = @_;
	return $c->wait_sql($i, "SELECT bool_and(state = 'open' AND primary_node <> 'n$dead') FROM payshard.shards", 60);
}

# kill -9
my ($victim, $survivor) = primary_with_clients();
my @moved = $p->accounts_at($victim);
$p->start($_, 120) foreach 1 .. 2;
$p->start($_, 120) foreach 1 .. 2;
$c->wait_until('payments to be under way', 60, sub { $c->sql($survivor, 'SELECT count(*) > 30 FROM payments') eq 't' });
$c->kill9($victim, all => 1);
await_moved($survivor, $victim);
ok(1, 'kill -9: the shards have another primary, by themselves');
is(scalar($p->pay($survivor, $moved[0])), 'ok', 'kill -9: a shard of the dead primary takes payments') || diag($p->{last_error});
$p->finish;
$c->start($victim);
$p->assert_kept('kill -9 of a primary');

# SIGSTOP, SIGCONT
($victim, $survivor) = primary_with_clients();
@moved = $p->accounts_at($victim);
$p->start($_, 60) foreach 1 .. 2;
$c->wait_until('payments to be under way', 60, sub { $c->sql($survivor, 'SELECT count(*) > 10 FROM payments') eq 't' });
$c->pause($victim);
await_moved($survivor, $victim);
is(scalar($p->pay($survivor, $moved[0])), 'ok', 'SIGSTOP: a shard of the frozen primary takes payments') || diag($p->{last_error});
$c->resume($victim);
$p->finish;
$p->assert_kept('SIGSTOP and SIGCONT of a primary');

done_testing();
