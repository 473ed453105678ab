# A node that stands still, or from which nothing comes back, is waited for until a deadline,
# never until it moves again.
#
# Method: all processes of node 2 are stopped, and stay so until the others have gone on.
# (a) The sender has just connected to it, and is about to prepare its statement.
# (b) A client at node 1 runs a statement there, and loses patience.
use strict;
use warnings;
use IPC::Run ();
use PayshardCluster;
use PayshardPayments;
use Test::More;

plan skip_all => 'needs a build with PAYSHARD_FAULTS=1' unless $ENV{PAYSHARD_FAULTS};

my $c = PayshardCluster->new(nodes => 3, shards => 8, conf => <<'CONF');
payshard.auto_failover = off
payshard.peer_timeout = 60s
payshard.call_timeout = 3s
CONF
my $p = PayshardPayments->new($c);

# (a)
my $offset = $c->log_size(1);
$c->arm_fault(1, 'sender.connected', 'pause');
$c->sql(2, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'payshard sender n1'");
$c->wait_sql(1, "SELECT payshard_fault.paused('sender.connected')");
$c->pause(2);
$c->sql(1, "SELECT payshard_fault.disarm('sender.connected')");
$c->wait_log(1, qr/connection to node "n2" closed: no answer/, 60, $offset);
pass('the sender goes on when its first statement is not answered');
$c->resume(2);
$c->wait_all_in_sync;

# (b)
my ($account) = $p->accounts_at(2);
my $busy = 'UPDATE accounts SET balance = balance WHERE id = ' . $account;
my ($in, $out) = ("BEGIN;\n$busy;\n\\echo locked\n", '');
my $holder = IPC::Run::start([ 'psql', '-XAtq', '-d', $c->node(2)->connstr('postgres') ], '<', \$in, '&>', \$out);
$c->wait_until('the row to be locked', 30, sub { $holder->pump_nb; return $out =~ /locked/; });
my $answer = '';
my $client = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $c->node(1)->connstr('postgres'), '-c', $busy ],
	'<', \undef, '&>', \$answer);
$c->wait_sql(2, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE%'");
$c->pause(2);
$c->sql(1, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'UPDATE accounts%' AND state = 'active'");
$c->wait_until('the client to have its answer', 60, sub { return 1 if !$client->pumpable; $client->pump_nb; return 0; });
$client->finish;
like($answer, qr/ERROR:  57014/, 'who cancels a statement at a node that stands still is told so');
$c->resume(2);
$in = "ROLLBACK;\n\\q\n";
$holder->finish;
$c->wait_sql(2, "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'UPDATE%' AND state <> 'idle'");
$p->assert_kept('at the end');
done_testing();
