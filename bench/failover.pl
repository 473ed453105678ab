#!/usr/bin/perl
# bench/failover.pl
#		How long do payments stand still when a primary is lost, and is any lost
#		for want of CPU only?  With the defaults of automatic failover (Q1).
#
#	make check T=bench/failover.pl
#
# Three data nodes on this machine, 64 shards, two copies, a proxy between the nodes.
#	calm	pgbench at every node while other processes keep all cores busy: no node may fall;
#			printed are the shortest rest of a lease and the longest silence seen.
#	lost	round by round a node is killed (kill -9), stands still (SIGSTOP), is cut off from
#			the others; a client at another node pays at one of its shards at once.  Printed:
#			the time until that payment is acknowledged.
# Nothing fails here because of a time; a payment that is not as its client was told does.
#
# Environment: FAILOVER_ROUNDS (3 of each), FAILOVER_CALM (30, seconds), FAILOVER_CLIENTS (32, of
# pgbench at each node), FAILOVER_BURN (4, busy loops during calm), FAILOVER_CONF (settings).
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use PayshardProxy;
use Test::More;
use Time::HiRes qw(time usleep);

my $rounds = $ENV{FAILOVER_ROUNDS} // 3;
my $calm = $ENV{FAILOVER_CALM} // 30;
my $clients = $ENV{FAILOVER_CLIENTS} // 32;
my $burn = $ENV{FAILOVER_BURN} // 4;
my $c = PayshardCluster->new(nodes => 3, shards => 64, auto => 1, conf => <<"CONF");
payshard.failover_wait = 60s
max_connections = 200
${\($ENV{FAILOVER_CONF} // '')}
CONF
my $p = PayshardPayments->new($c);
my $net;
my $dir = PostgreSQL::Test::Utils::tempdir();
my @pids;

sub background
{
	my ($log, @command) = @_;
	my $pid = fork() // die "fork: $!";
	return $pid if $pid;
	open STDIN, '<', '/dev/null';
	open STDOUT, '>', $log;
	open STDERR, '>&', \*STDOUT;
	exec { $command[0] } @command or POSIX::_exit(127);
}

sub load
{
	my ($seconds) = @_;

	open my $file, '>', "$dir/pay.sql" or die "$dir/pay.sql: $!";
	print $file "\\set a random(1, 4000)\n\\set id random(1, 9000000000000000)\nINSERT INTO load VALUES (:a, :id, 1);\n";
	close $file;
	push @pids, background("$dir/pgbench$_", 'pgbench', '-n', '-M', 'prepared', '-c', $clients, '-j', 2, '-T', $seconds,
		'-f', "$dir/pay.sql", $c->node($_)->connstr('postgres')) foreach 1 .. 3;
	push @pids, background('/dev/null', $^X, '-e', "my \$end = time + $seconds; 1 while time < \$end") foreach 1 .. $burn;
	return;
}

sub measure_calm
{
	my ($rest, $silence, $end) = (1e9, 0, time() + $calm);
	my $epoch = $c->sql(1, 'SELECT max(epoch) FROM payshard.map_history');

	load($calm);
	while (time() < $end)
	{
		foreach my $i (1 .. 3)
		{
			my ($least, $longest) = split /\|/,
			  $c->sql($i, 'SELECT min(left_ms), max(silent_ms) FROM payshard.leases');
			$rest = $least if $least < $rest;
			$silence = $longest if $longest > $silence;
		}
	}
	waitpid $_, 0 foreach @pids;
	@pids = ();
	my @tps = map { PostgreSQL::Test::Utils::slurp_file("$dir/pgbench$_") =~ /^tps = (\d+)/m ? $1 : 'failed' } 1 .. 3;
	diag("calm: $calm s, $clients clients at each node and $burn busy loops: tps @tps; shortest rest of a lease $rest ms, longest silence $silence ms");
	return is($c->sql(1, "SELECT string_agg(epoch || ' ' || reason, ', ') FROM payshard.map_history WHERE epoch > $epoch"), '',
		'nobody is taken for lost for want of CPU');
}

my %lose = (
	'kill -9' => [ sub { $c->kill9($_[0], all => 1) }, sub { $c->start($_[0]) } ],
	'SIGSTOP' => [ sub { $c->pause($_[0]) }, sub { $c->resume($_[0]) } ],
	'cut off' => [ sub { $net->isolate($_[0]) }, sub { $net->heal } ]);
my %took = map { $_ => [] } keys %lose;

sub measure_lost
{
	my ($how) = @_;
	my ($node) = sort { $p->accounts_at($b) <=> $p->accounts_at($a) } 1 .. 3;
	my ($account) = $p->accounts_at($node);
	my $via = $node % 3 + 1;

	$p->start($_, 40) foreach 1 .. 3;
	$c->sql($via, "SELECT count(*) > 0 FROM payments");
	my $begun = time();
	$lose{$how}[0]->($node);
	my $outcome = $p->pay($via, $account, timeout => 120);
	push @{ $took{$how} }, time() - $begun;
	my $phases = $c->sql($via, "SELECT string_agg(extract(epoch FROM x - failed)::numeric(9,2)::text, ' / ') "
		  . "FROM (SELECT * FROM payshard.incidents WHERE node = 'n$node' ORDER BY epoch DESC LIMIT 1) i, "
		  . 'unnest(ARRAY[detected, decided, open_again]) x');
	is($outcome, 'ok', "$how: the payment is taken") || diag($p->{last_error});
	$lose{$how}[1]->($node);
	$p->finish(120);
	$p->wait_in_sync(180);
	my @sorted = sort { $a <=> $b } @{ $took{$how} };
	diag(sprintf '%s: paid after %.2f s (detected / decided / open again, after its last answer: %s); median %.2f s, longest %.2f s of %d',
		$how, $took{$how}[-1], $phases, $sorted[ $#sorted / 2 ], $sorted[-1], scalar(@sorted));
	return;
}

$p->{seconds} = 180;
$c->sql(1, 'CREATE TABLE load (a bigint, id bigint, amount bigint, PRIMARY KEY (a, id))');
$c->sql(1, "SELECT payshard.create_distributed_table('load', 'a')");
measure_calm() if $calm > 0;
foreach my $how ('kill -9', 'SIGSTOP', 'cut off')
{
	# a proxy would hide that nobody listens any more
	$net //= PayshardProxy->new($c) if $how ne 'kill -9';
	measure_lost($how) foreach 1 .. $rounds;
}
$p->assert_kept('at the end');
done_testing();
