#!/usr/bin/perl
# bench/rejoin.pl
#		How long until a node that was away is back in sync, while payments go on?
#
#	make check T=bench/rejoin.pl
#
# Three data nodes on this machine, 64 shards, two copies.  pgbench pays at nodes 1 and 2 all the time, as
# fast as it can; node 3 is killed (kill -9), is away for a while, and comes back.  Printed: the time from its
# start until every placement is in sync, the dirty keys it had missed, payments per second meanwhile.
# Nothing fails here because of a time; a payment that is not as its client was told does.
#
# Environment: REJOIN_OUTAGE (60, seconds), REJOIN_ROUNDS (1), REJOIN_CLIENTS (8, at each node).
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;
use Time::HiRes qw(time);

my $outage = $ENV{REJOIN_OUTAGE} // 60;
my $rounds = $ENV{REJOIN_ROUNDS} // 1;
my $clients = $ENV{REJOIN_CLIENTS} // 8;
my $c = PayshardCluster->new(nodes => 3, shards => 64, auto => 1, conf => "payshard.failover_wait = 60s\nmax_connections = 200\n");
my $p = PayshardPayments->new($c);
my $dir = PostgreSQL::Test::Utils::tempdir();
my @pids;

sub load
{
	my ($seconds) = @_;

	open my $file, '>', "$dir/pay.sql" or die "$dir/pay.sql: $!";
	print $file "\\set a random(1, 4000)\n\\set id random(1, 9000000000000000)\nINSERT INTO load VALUES (:a, :id, 1);\n";
	close $file;
	foreach my $i (1, 2)
	{
		my $pid = fork() // die "fork: $!";
		if ($pid == 0)
		{
			open STDOUT, '>', "$dir/pgbench$i";
			open STDERR, '>&', \*STDOUT;
			exec 'pgbench', '-n', '-M', 'prepared', '-c', $clients, '-j', 1, '-T', $seconds, '--max-tries', 100,
			  '-f', "$dir/pay.sql", $c->node($i)->connstr('postgres')
			  or POSIX::_exit(127);
		}
		push @pids, $pid;
	}
	return;
}

sub measure
{
	load($outage + 60);
	$c->kill9(3, all => 1);
	# the outage is what is measured: it lasts as long as it is said to
	my $end = time() + $outage;
	select undef, undef, undef, $end - time() while time() < $end;
	my $missed = $c->sql(1, 'SELECT count(*) FROM payshard.dirty_key') + $c->sql(2, 'SELECT count(*) FROM payshard.dirty_key');
	my $begun = time();
	$c->start(3);
	$c->wait_all_in_sync(600);
	my $took = time() - $begun;
	waitpid $_, 0 foreach @pids;
	@pids = ();
	my @tps = map { PostgreSQL::Test::Utils::slurp_file("$dir/pgbench$_") =~ /^tps = (\d+)/m ? $1 : 'failed' } 1, 2;
	diag(sprintf 'rejoin: in sync %.1f s after its start; away %d s, %d keys had changed; payments/s @1 @2: %s',
		$took, $outage, $missed, "@tps");
	return $took;
}

$p->{seconds} = 180;
$c->sql(1, 'CREATE TABLE load (a bigint, id bigint, amount bigint, PRIMARY KEY (a, id))');
$c->sql(1, "SELECT payshard.create_distributed_table('load', 'a')");
my @took = sort { $a <=> $b } map { measure() } 1 .. $rounds;
diag(sprintf 'rejoin: median %.1f s, longest %.1f s of %d', $took[ $#took / 2 ], $took[-1], scalar(@took));
$c->assert_copies_equal(1, 'after the load');
$p->assert_kept('at the end');
done_testing();
