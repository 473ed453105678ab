# What a restored voter has forgotten helps nobody to a second map of an epoch (M1, M3),
# although its directory has the mark of its last start: it was copied since.
#
# Method: node 3, a witness, is copied while it runs; then it helps to choose a map; then the copy is
# put back, node 1 dies, and node 2 wants a map of its own. Each sign by itself, the others
# switched off, and all off: then it gets it.
use strict;
use warnings;
use IPC::Run ();
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "payshard.peer_timeout = 60s\n");
my $p = PayshardPayments->new($c);
my $directory = $c->node(3)->data_dir;
my $cluster = $c->sql(3, 'SELECT cluster_id FROM payshard.acceptor');
my %off = (judged => [ 3, 'M3.judged' ], taken => [ 2, 'M1.taken' ]);

$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;

sub run { PostgreSQL::Test::Utils::system_or_bail(@_); return; }
sub epoch { return $c->sql($_[0], 'SELECT epoch FROM payshard.chosen_map'); }
sub ballot { return $c->sql(3, 'SELECT promised + 640000 FROM payshard.acceptor'); }
sub promises { return "SELECT promised FROM payshard.peer_prepare($cluster, $_[0])"; }
sub accepts { return "SELECT accepted FROM payshard.peer_accept($cluster, $_[0], $_[1])"; }

# A promise is for its session.
my $chosen = '(SELECT value FROM payshard.chosen_map)';
my $ballot = ballot();
is($c->sql(3, promises($ballot) . ';' . accepts($ballot, $chosen)), "t\nt", 'who has promised accepts');
$ballot = ballot();
is($c->sql(3, promises($ballot)), 't', 'promised in one session');
is($c->sql(3, accepts($ballot, $chosen)), 'f', 'not accepted in another');
# Its start is chosen, but it does not hear of that, and proposes it again: as it was, with the
# same time and reason, or nodes would have two versions of the map.
my $faults = "$directory/payshard_fault.conf";
my $offset = $c->log_size(3);
$c->stop(3);
PostgreSQL::Test::Utils::append_to_file($faults, "proposer.after_accept error 1\n");
chmod 0644, $faults;
$c->start(3);
$c->wait_log(3, qr/ERROR:  fault point "proposer.after_accept"/, 30, $offset);
my ($failed_at) = PostgreSQL::Test::Utils::slurp_file($c->node(3)->logfile, $offset) =~ /^(\S+ \S+ \S+) .*ERROR:  fault point "proposer.after_accept"/m;
unlink $faults;
$c->wait_started(3);
is($c->sql(1, "SELECT changed_at <= '$failed_at'::timestamptz + interval '1 ms' FROM payshard.map_history WHERE reason = 'start of node n3' ORDER BY epoch DESC LIMIT 1"),
	't', 'what is proposed again is as it was');
is($c->sql(3, accepts($ballot, $chosen)), 'f', 'nor after a restart');
$ballot += 640000;
is($c->sql(3, accepts($ballot, $chosen)), 'f', 'nor without any promise');

# What is chosen is not chosen again.
my $old = "decode('" . $c->sql(3, "SELECT encode(value, 'hex') FROM payshard.chosen_map") . "', 'hex')";
my $before = epoch(3);
$c->sql(1, "SELECT payshard.start_maintenance('n3', '1 hour')");
$c->wait_sql(3, "SELECT epoch > $before FROM payshard.chosen_map");
$ballot = ballot();
is($c->sql(3, promises($ballot) . ';' . accepts($ballot, $old)), "t\nf", 'an older map is not accepted');
$c->sql(1, "SELECT payshard.stop_maintenance('n3')");

# Nor one that has been replaced while the vote waited for its row.
my $old_chosen = "decode('" . $c->sql(3, "SELECT encode(value, 'hex') FROM payshard.chosen_map") . "', 'hex')";
$before = epoch(3);
$ballot = ballot();
my $holder = $c->node(3)->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(7)');
my $voted = '';
my $voter = IPC::Run::start([ 'psql', '-XAtq', '-d', $c->node(3)->connstr('postgres'), '-c', promises($ballot),
		'-c', 'SELECT FROM pg_advisory_lock(7)', '-c', accepts($ballot, $old_chosen) ], '<', \undef, '&>', \$voted);
my $waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE";
$c->wait_sql(3, "$waits '%pg_advisory_lock%'");
$holder->query_safe('BEGIN; SELECT FROM payshard.acceptor FOR UPDATE');
$holder->query_safe('SELECT pg_advisory_unlock(7)');
$c->wait_sql(3, "$waits 'SELECT accepted%'");
$c->sql(1, "SELECT payshard.set_node('n3', zone => 'elsewhere')");
$c->wait_sql(3, "SELECT epoch > $before FROM payshard.chosen_map");
$holder->query_safe('COMMIT');
$voter->finish;
$holder->quit;
is($voted, "t\nf\n", 'a map that was replaced while the vote waited is not accepted');

# Node 3 helps node 1 to a map; node 2 hears of it, but has not voted on it.  False: it has,
# as somebody proposed the same map once more.
sub choose_without_2
{
	$before = epoch(1);
	$c->sql(2, "SELECT payshard_fault.arm('acceptor.before_accept', 'error', 1)");
	$c->sql(1, "SELECT payshard.set_node('n3', zone => 'zone' || $before)");
	my $wanted = epoch(1);
	die "the map has epoch $wanted as before" if $wanted <= $before;
	$c->wait_sql(2, "SELECT epoch >= $wanted FROM payshard.chosen_map");
	my $lsn = $c->sql(3, q{SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint});
	$c->wait_sql(2, "SELECT payshard.peer_heard(3) >= $lsn");
	$c->kill9(1, all => 1);
	$c->kill9(3, all => 1);
	return $c->sql(2, 'SELECT a.value <> m.value FROM payshard.acceptor a, payshard.chosen_map m') eq 't';
}

# Then node 3 forgets it, and node 2 wants another one: how many maps of that epoch are there?
sub maps_when_forgotten
{
	my ($name, @off) = @_;
	for (my $tries = 1;; $tries++)
	{
		die 'node 2 has always voted, too' if $tries > 20;
		$c->start($_) foreach grep { !$c->is_running($_) } 1 .. 3;
		$c->wait_started($_) foreach 1 .. 3;
		$p->assert_kept("before: $name") if $tries == 1;
		$c->sql(3, 'CHECKPOINT');
		$c->pause(3);
		run('rm', '-rf', "$directory.old");
		run('cp', '-a', $directory, "$directory.old");
		$c->resume(3);
		last if choose_without_2();
	}
	my ($epoch, $map) = split /\|/, $c->sql(2, 'SELECT epoch, md5(value) FROM payshard.chosen_map');
	run('rm', '-rf', $directory);
	run('mv', "$directory.old", $directory);
	foreach (map { $off{$_} } @off)
	{
		my ($i, $rule) = @$_;
		if ($i == 2) { $c->sql(2, "SELECT payshard_fault.arm('$rule', 'off', 1)"); }
		else { PostgreSQL::Test::Utils::append_to_file("$directory/payshard_fault.conf", "$rule off 1\n"); }
	}
	$c->start(3);
	$c->try_sql(2, "SET statement_timeout = '8s'; SELECT payshard.failover('n1')", timeout => 30);
	my %maps = ($map => 1);
	foreach my $i (2, 3)
	{
		$maps{$_} = 1 foreach split /\n/, $c->sql($i, "SELECT md5(value) FROM payshard.map_history WHERE epoch = $epoch "
			  . "UNION SELECT md5(value) FROM payshard.chosen_map WHERE epoch = $epoch");
	}
	return scalar keys %maps;
}

is(maps_when_forgotten('compared with what was heard', 'taken'), 1, 'WAL behind what was heard: it does not vote');
$c->sql(2, q{SELECT payshard_fault.disarm('M1.taken')});
is(maps_when_forgotten('chosen here', 'judged'), 1, 'node 2 accepts no other map of an epoch that it knows');
# node 3 may hear of the map before it proposes its own
my $n_maps = 1;
for (my $tries = 0; $tries < 10 && $n_maps == 1; $tries++) { $n_maps = maps_when_forgotten('neither', 'judged', 'taken'); }
is($n_maps, 2, 'without both there are two maps of one epoch');
done_testing();
