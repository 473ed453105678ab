# remove_node under load: all copies go elsewhere first, two of each shard are in
# sync all the time, and then the node is no member any more.  What would lose a last
# copy, or has no room, is refused and changes nothing; a call that is cancelled, and a
# node that dies after it was asked, leave a drain that goes on.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 5, shards => 16, witness => [5], zones => [qw(a b c c w)],
	conf => "payshard.move_shards = 4\npayshard.peer_timeout = 700ms\n");
my $p = PayshardPayments->new($c, accounts => 96, seconds => 120);

sub pay { my ($n, @nodes) = @_; $p->start($_, $n, accounts => [ $p->accounts_at($_, 1) ]) foreach @nodes; return; }

# A refusal has its SQLSTATE, a detail and a hint, and leaves the map as it was.
sub refused
{
	my ($i, $sql, $state, $words, $name) = @_;
	my $epoch = $c->sql($i, 'SELECT max(epoch) FROM payshard.map_history');
	my ($status, $out, $err) = $c->try_sql($i, $sql);
	like($err, qr/ERROR:  $state: .*$words.*DETAIL:  .*HINT:  /s, $name);
	is($c->sql($i, 'SELECT max(epoch) FROM payshard.map_history'), $epoch, "$name: nothing has changed");
	return;
}

refused(1, "SELECT payshard.remove_node('n9')", '42704', 'no node "n9"', 'an unknown node');
refused(1, "SELECT payshard.remove_node('n1')", '55000', 'cannot remove itself', 'the node that is asked');

# Under load.
pay(300, 1, 2, 3);
$c->sql(1, "SELECT payshard.remove_node('n4')");
is($c->sql(1, "SELECT count(*) FROM payshard.nodes WHERE name = 'n4'"), '0', 'the call returns when the node is removed');
$p->finish;
my %failed;
foreach my $id (grep { $p->{outcome}{$_} ne 'ok' } keys %{ $p->{outcome} }) { $failed{ $p->{state}{$id} // 'none' }++; }
note('refused to clients: ' . join(', ', map { "$_: $failed{$_}" } sort keys %failed));
my ($status, $out, $err);
ok($c->wait_until('node 4 to say that it was removed', 30, sub {
			($status, $out, $err) = $c->try_sql(4, 'SELECT count(*) FROM accounts');
			return $err =~ /ERROR:  55000: this database is not a member/;
		}), 'who was removed says so, when it has heard of it');
$c->stop(4);
$p->assert_kept('removed under load');
is($c->sql(2, "SELECT reason, phase FROM payshard.jobs ORDER BY job DESC LIMIT 1"), 'drain of node n4|done', 'it was a job');

# Zones: n1 in a, n2 in b, n3 in c.  With n2 moved to c, n1 alone is in another zone.
$c->sql(1, "SELECT payshard.set_node('n2', zone => 'c')");
refused(2, "SELECT payshard.remove_node('n1')", '55000', 'one zone', 'the last node of all zones but one');
$c->sql(1, "SELECT payshard.set_node('n2', zone => 'b')");

# A call that is cancelled: the drain goes on.
pay(50, 1, 2);
($status, $out, $err) = $c->try_sql(1, "SET statement_timeout = '1ms'; SELECT payshard.remove_node('n3')");
like($err, qr/57014/, 'cancelled');
$c->wait_sql(1, "SELECT count(*) FROM payshard.nodes WHERE name = 'n3'", 60, '0') if $c->sql(1, 'SELECT count(*) FROM payshard.moves') > 0;
if ($c->sql(1, "SELECT count(*) FROM payshard.nodes WHERE name = 'n3'") ne '0')
{
	$c->sql(1, "SELECT payshard.remove_node('n3')");	# it was cancelled before anything was ordered
}
$p->finish;
$c->stop(3);
$p->assert_kept('removed though the call was cancelled');

# Two data nodes for two copies: no room.
refused(1, "SELECT payshard.remove_node('n2')", '55000', 'no other place', 'too few nodes');
# A lost node with the only copy of a shard.
$c->kill9(2);
my ($mine) = $p->accounts_at(1, 1);
is(scalar($p->pay(1, $mine)), 'ok', 'a payment with one copy') || diag($p->{last_error});
$c->start(2);
$p->wait_in_sync;

# Stopped amid the drain: it stays.
my $six = $c->new_server;
$c->add_node($six, zone => 'd');
$c->wait_log($six, 'has started with incarnation');
unlike(PostgreSQL::Test::Utils::slurp_file($c->node($six)->logfile), qr/as a stranger/,
	'what was heard of a removed node is not held against the next one with its id');
$c->sql($_, q(ALTER SYSTEM SET payshard.copy_rate = '1kB')) foreach 1, 2, $six;
$c->sql($_, 'SELECT pg_reload_conf()') foreach 1, 2, $six;
my $pid = fork() // die;
if ($pid == 0)
{
	open STDOUT, '>', '/dev/null'; open STDERR, '>', '/dev/null';
	exec { 'psql' } 'psql', '-XAtq', '-d', $c->node(1)->connstr('postgres'), '-c', "SELECT payshard.remove_node('n2')" or POSIX::_exit(1);
}
$c->wait_sql(1, 'SELECT count(*) > 0 FROM payshard.moves', 30);
$c->sql(1, 'SELECT payshard.rebalance_stop()');
waitpid($pid, 0);
isnt($?, 0, 'the call of remove_node fails when it is stopped');
is($c->sql(1, "SELECT count(*) FROM payshard.nodes WHERE name = 'n2'"), '1', 'the node stays');
$c->wait_sql(1, 'SELECT count(*) FROM payshard.moves', 30, '0');

# The node that was asked dies: others end what it began.
$c->sql($_, 'ALTER SYSTEM RESET payshard.copy_rate') foreach 1, 2, $six;
$c->sql($_, 'SELECT pg_reload_conf()') foreach 1, 2, $six;
$c->arm_fault(1, 'move.after_drain', 'panic');
$c->try_sql(1, "SELECT payshard.remove_node('n2')");
$c->wait_down(1);
$c->start(1);
$c->wait_sql($six, "SELECT count(*) FROM payshard.nodes WHERE name = 'n2'", 60, '0');
ok(1, 'removed though the node that was asked has died');
$c->stop(2);
$p->assert_kept('after the death of the node that was asked');

# A witness holds nothing: it goes at once.  The first try is accepted by too few, and
# what they have accepted is what the second one finds.
$c->arm_fault($six, 'acceptor.before_accept', 'error');
$c->sql(1, "SELECT payshard.remove_node('n5')");
is($c->sql(1, "SELECT string_agg(name, ' ' ORDER BY name) FROM payshard.nodes"), "n1 n$six", 'a witness goes at once');

# The next node gets a number that has become free; the server of the former one does not take it
# for itself.
my $seven = $c->new_server;
$c->add_node($seven, zone => 'g');
my $id_of = "SELECT node_id FROM payshard.nodes WHERE name = ";
is($c->sql($seven, "$id_of 'n$seven'"), '2', 'a number that has become free is given again');
my $eight = $c->new_server;
$c->add_node($eight, zone => 'e', weight => 0);
$c->stop($eight);
$c->sql(1, "SELECT payshard.remove_node('n$eight')");
my $nine = $c->new_server;
$c->add_node($nine, zone => 'e', weight => 0);
is($c->sql($nine, "$id_of 'n$nine'"), '4', 'also that of a server that does not know yet that it was removed');
$c->start($eight);
like(($c->try_sql($eight, 'SELECT count(*) FROM accounts'))[2], qr/ERROR:  (?:55000: this database is not a member|57P03: )/, 'which serves nothing');
$c->wait_log($eight, qr/not a member|"payshard_n$nine" does not exist/, 60);
is($c->sql(1, "SELECT count(*) FROM payshard.events WHERE kind = 'node_started' AND node = 'n$nine'"), '1',
	'and does not begin anew in the name of the next one');
$c->stop($eight);
$c->sql(1, "SELECT payshard.remove_node('n$nine')");
$c->stop($nine);

# The node with the lowest number sees to removals, but not to its own.
$c->sql($seven, "SELECT payshard.remove_node('n1')");
is($c->sql($seven, "SELECT string_agg(name, ' ' ORDER BY name) FROM payshard.nodes"), "n$six n$seven", 'the first node is removed, too');
$c->stop(1);
done_testing();
