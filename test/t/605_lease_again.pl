# Who gets a lease serves at once (Q1): a node that starts again although the others were
# about to depose it, and a statement that waits for the lease.
#
# Method: promises of ten minutes and three nodes.  A node is killed; once both others suspect
# it, and promise its incarnation nothing more, it starts again: were they to withhold
# promises from the new incarnation, too, no payment would be taken there for as long.  Then
# its senders are paused, and it becomes primary of more shards, for which it needs the lease
# anew: a payment waits for it.  When the senders go on it must be woken: nothing looks again.
# So must a commit that had its acks when the lease went: it looks again after a minute.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $patience = "SET statement_timeout = '30s'; ";
my $c = PayshardCluster->new(nodes => 3, shards => 8, auto => 1,
	conf => "payshard.lease_timeout = 10min\npayshard.log_remote_commands = on\n");
my $p = PayshardPayments->new($c);
my ($lost) = sort { $p->accounts_at($b) <=> $p->accounts_at($a) } 1 .. 3;
my @others = grep { $_ != $lost } 1 .. 3;
my ($account) = $p->accounts_at($lost);
my %offset = map { $_ => $c->log_size($_) } @others;

is($p->pay($lost, $account), 'ok', 'a payment');
$c->kill9($lost, all => 1);
$c->wait_log($_, qr/payshard\.peer_suspects/, 60, $offset{$_}) foreach @others;
pass('both others suspect the node and withhold their promises');
$c->start($lost);
$c->wait_started($lost);
is($p->pay($lost, $account, before => $patience), 'ok', 'it has started again: it has a lease and takes payments');
is($p->primary_of($account), $lost, 'it was not failed over');

$p->wait_in_sync;
$c->node($_)->append_conf('postgresql.conf', "payshard.suspect_timeout = 10min\n") foreach 1 .. 3;
$c->node($_)->reload foreach 1 .. 3;
$c->sql($_, 'SELECT 1') foreach 1 .. 3;
my ($gained) = map { [ $p->accounts_between($_, $lost) ]->[0] // () } @others;
$c->arm_fault($lost, "sender.before_send.n$_", 'pause') foreach @others;
$c->wait_sql($lost, "SELECT payshard_fault.paused('sender.before_send.n$_')") foreach @others;
my $from = $p->primary_of($gained);
$c->sql($from, "SELECT count(*) FROM payshard.switchover($p->{shard}{$gained}, 'n$lost')");
is($c->sql($lost, 'SELECT held FROM payshard.leases WHERE is_self'), 'f', 'primary of more shards, it has no lease');
my $client = $p->start($lost, 1, accounts => [$gained], before => "SET application_name = 'waits';\n$patience\n");
$c->wait_sql($lost, "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE application_name = 'waits'");
$c->sql($lost, "SELECT payshard_fault.disarm('sender.before_send.n$_')") foreach @others;
$p->finish;
is(join(', ', grep { $_ ne 'ok' } values %{ $p->{outcome} }), '', 'a payment that waited for the lease is taken when it comes');

# a commit that has all its acks, and waits for the lease only; it looks again after keepalive
my ($second) = map { $p->accounts_between($_, $lost) } @others;
my ($mine) = grep { $p->{shard}{$_} != $p->{shard}{$second} } $p->accounts_at($lost);
$c->node($lost)->append_conf('postgresql.conf', "payshard.keepalive = 60s\n");
$c->node($lost)->reload;
$c->wait_sql($lost, "SELECT current_setting('payshard.keepalive') = '1min'");
$c->arm_fault($lost, 'commit.after_enqueue', 'pause');
$p->start($lost, 1, accounts => [$mine]);
$c->wait_sql($lost, "SELECT payshard_fault.paused('commit.after_enqueue')");
$c->wait_sql($lost, "SELECT coalesce(bool_or(acked_seq = queued_seq), false) FROM payshard.replication");
$c->arm_fault($lost, "sender.before_send.n$_", 'pause') foreach @others;
$c->sql($p->primary_of($second), "SELECT count(*) FROM payshard.switchover($p->{shard}{$second}, 'n$lost')");
$c->wait_sql($lost, "SELECT payshard_fault.paused('sender.before_send.n$_')") foreach @others;
is($c->sql($lost, 'SELECT held FROM payshard.leases WHERE is_self'), 'f', 'it has no lease');
$c->sql($lost, "SELECT payshard_fault.disarm('commit.after_enqueue')");
$c->wait_sql($lost, "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE query LIKE '%INTO payments VALUES ($mine,%' AND pid <> pg_backend_pid()");
$c->sql($lost, "SELECT payshard_fault.disarm('sender.before_send.n$_')") foreach @others;
ok(eval { $p->finish(30); 1 }, 'a commit that waited for the lease ends when it comes') || diag($@);
$c->node($lost)->append_conf('postgresql.conf', "payshard.keepalive = 200ms\n");
$c->node($lost)->reload;
is(join(', ', grep { $_ ne 'ok' } values %{ $p->{outcome} }), '', 'all payments were taken');
$p->assert_kept('at the end');
done_testing();
