# Nodes may have different lease timeouts: a promise says itself how long it lasts, it
# outlives any number of restarts of the voter with a shorter one, and a node that serves
# without a lease is not failed over by itself (Q1).
#
# Method: node 2 is started with a timeout of ten minutes, then twice with a short
# one: it still counts itself bound, and refuses to depose node 1, whose lease it may
# have promised.  Once what it may have promised can no longer last, it forgets.  Then node 3
# is started with 0, and frozen: the others leave it, and say why.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 8, auto => 1, conf => "payshard.call_timeout = 2s\n");
my $p = PayshardPayments->new($c);

sub restart_with
{
	my ($i, $timeout) = @_;
	$c->node($i)->append_conf('postgresql.conf', "payshard.lease_timeout = $timeout\n");
	$c->restart($i);
	$c->wait_started($i);
	$c->wait_all_in_sync;
	return;
}
my $kept = 'SELECT lease_ms FROM payshard.acceptor';
my $bound = "SELECT promised_ms > 60000 FROM payshard.leases WHERE node = 'n1'";

restart_with(2, '10min');
is($c->sql(2, $kept), '600000', 'a longer timeout is kept before a promise is made');
restart_with(2, '100ms');
is($c->sql(2, $bound), 't', 'started with a shorter one: bound by what it may have promised');
restart_with(2, '100ms');
is($c->sql(2, $bound), 't', 'started with it again: still bound');
is($c->sql(2, $kept), '600000', 'and so it would be after one more start');

$c->pause(1);
my ($status, $out, $err) = $c->try_sql(3, "SET statement_timeout = '8s'; SELECT payshard.failover('n1')");
isnt($status, 0, 'node 1 hangs, and is not failed over while node 2 may have promised it a lease');
is($c->sql($_, q{SELECT count(*) FROM payshard.events WHERE kind = 'node_failed' AND node = 'n1'}), '0', "node $_ sees it in place") foreach 2, 3;
$c->resume(1);
$p->start($_, 10) foreach 1 .. 3;
$p->finish;
$p->assert_kept('different timeouts');

# What cannot last any more is forgotten: as after ten minutes, here with two seconds.
$c->stop(2);
$c->start(2);
$c->wait_started(2);
$c->sql(2, 'UPDATE payshard.acceptor SET lease_ms = 2000');
restart_with(2, '100ms');
$c->wait_sql(2, $kept, 30, '100');
pass('after as long as the promises could last the shorter one is kept');

$c->node(2)->append_conf('postgresql.conf', "payshard.lease_timeout = 2s\n");
$c->restart(2);
$c->wait_started(2);
restart_with(3, 0);
is($c->sql(3, 'SELECT held, left_ms FROM payshard.leases WHERE is_self'), 't|', 'node 3 serves without a lease');
$c->pause(3);
$c->wait_sql($_, "SELECT count(*) > 0 FROM payshard.events WHERE kind = 'not_failed_over' AND node = 'n3' "
	  . "AND detail LIKE 'its payshard.lease_timeout is 0%'", 60) foreach 1, 2;
pass('it hangs: an event says why it is not failed over');
is($c->sql(2, q{SELECT count(*) FROM payshard.events WHERE kind = 'node_failed' AND node = 'n3'}), '0', 'it is not');
$c->resume(3);
$p->start($_, 10) foreach 1 .. 3;
$p->finish;
$p->assert_kept('the end');
done_testing();
