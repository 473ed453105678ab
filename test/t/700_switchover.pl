# Another node becomes primary under load, and no client notices but by a pause (J5).
#
# Three nodes, two copies.  Clients at every node pay into accounts of all shards, in
# statements and in blocks, simple and prepared, while each node's shards are
# switched over, again and again.  No statement may fail; every payment is as its
# client was told; copies are equal.  The longest pause is printed.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PayshardCluster;
use PayshardPayments;
use Test::More;
use Time::HiRes qw(time usleep);

my $c = PayshardCluster->new(nodes => 3, replicas => 2, shards => 16, auto => 1);
my $p = PayshardPayments->new($c, accounts => 48);

my %script = (
	simple => <<'SQL',
\set account random(1, 48)
\set id random(1000000, 2000000000)
INSERT INTO payments VALUES (:account, :id, 0, 'pgbench') ON CONFLICT DO NOTHING;
SQL
	block => <<'SQL',
\set account random(1, 48)
BEGIN;
SELECT balance FROM accounts WHERE id = :account FOR UPDATE;
UPDATE accounts SET balance = balance + 0 WHERE id = :account;
SELECT count(*) FROM payments WHERE account_id = :account AND id < 10;
UPDATE accounts SET balance = balance + 0 WHERE id = :account;
COMMIT;
SQL
	read => <<'SQL',
\set account random(1, 48)
SELECT balance FROM accounts WHERE id = :account;
SQL
);
my $dir = PostgreSQL::Test::Utils::tempdir();
foreach my $name (keys %script)
{
	open my $file, '>', "$dir/$name.sql" or die;
	print $file $script{$name};
	close $file;
}

my @running;

sub bench
{
	my ($node, $name, $protocol, $seconds) = @_;
	my $out = "$dir/$name-$protocol-$node.out";
	my $pid = fork() // die;
	if ($pid == 0)
	{
		open STDOUT, '>', $out;
		open STDERR, '>&', \*STDOUT;
		exec { 'pgbench' } 'pgbench', '-n', '-M', $protocol, '-c', 2, '-T', $seconds, '-f', "$dir/$name.sql", '-l', "--log-prefix=$out.log",
		  $c->node($node)->connstr('postgres')
		  or POSIX::_exit(127);
	}
	push @running, [ $pid, $out, "$name, $protocol, node $node" ];
	return;
}

my $seconds = 16;
my $end = time() + $seconds;
foreach my $node (1 .. 3)
{
	bench($node, 'simple', 'simple', $seconds);
	bench($node, 'block', 'extended', $seconds);
	bench($node, 'read', 'prepared', $seconds);
	$p->start($node, 150, accounts => [ 1 .. 48 ]);
}
my ($n, $worst, @failed) = (0, 0);
while (time() < $end - 2)
{
	foreach my $node (1 .. 3)
	{
		my $asked = 1 + $n % 3;
		my ($status, $out, $err) = $c->try_sql($asked, "SELECT * FROM payshard.switchover('n$node')");
		push @failed, $err if $status != 0;
		$n++;
		foreach my $row (split /\n/, $out)
		{
			my ($from, $to, $shards, $ms) = split /\|/, $row;
			$worst = $ms if $ms > $worst;
		}
	}
}
is(join('', @failed), '', "$n times a node's shards were switched over");
note("longest pause: $worst ms");
diag(sprintf 'switchovers %d, longest pause %.0f ms', $n, $worst);
foreach my $run (@running)
{
	waitpid($run->[0], 0);
	my $text = PostgreSQL::Test::Utils::slurp_file($run->[1]);
	my ($done) = $text =~ /transactions actually processed: (\d+)/;
	my ($errors) = $text =~ /failed transactions: (\d+)/;
	ok($? == 0 && ($done // 0) > 0 && ($errors // 0) == 0, "$run->[2]: " . ($done // 'no') . ' transactions, none failed')
	  or diag(join "\n", grep { /ERROR|error|DETAIL|abort|failed/ } split /\n/, $text);
}
# column 3 of pgbench's logs: us of each transaction
my @latencies = sort { $b <=> $a } map { (split)[2] } map { split /\n/, PostgreSQL::Test::Utils::slurp_file($_) } glob("$dir/*.log.*");
diag(sprintf 'of %d transactions: longest %.0f ms, one in a thousand %.0f ms, median %.1f ms',
	scalar(@latencies), map { $_ / 1000 } @latencies[ 0, @latencies / 1000, @latencies / 2 ]);
$p->finish;
is(join(', ', map { "$_: $p->{state}{$_}" } sort keys %{ $p->{state} }), '', 'no payment failed');
$p->assert_kept('after all switchovers');
done_testing();
