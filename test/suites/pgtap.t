#!/usr/bin/perl
# What a user may rely on: test/pgtap, each file on a cluster of three nodes, in
# its first node's database "postgres".  Files begin a transaction and roll it
# back; their lines become a subtest.
use strict;
use warnings;
use File::Basename;
use PostgreSQL::Test::Utils;
use Test::More;

BEGIN
{
	plan skip_all => 'no files in test/pgtap' unless glob('test/pgtap/*.sql');
}
use PayshardCluster;

my $cluster = PayshardCluster->new(nodes => 3);
$cluster->sql(1, 'CREATE EXTENSION pgtap');

foreach my $path (sort(glob('test/pgtap/*.sql')))
{
	subtest basename($path) => sub {
		my ($status, $out, $err) = $cluster->try_sql(1, slurp_file($path), timeout => 180);
		my ($planned, $n_run) = (undef, 0);
		foreach my $line (split /\n/, $out)
		{
			$planned = $1 if $line =~ /^1\.\.(\d+)/;
			next unless $line =~ /^(not )?ok \d+(?: - (.*))?/;
			$n_run++;
			ok(!$1, $2 // '');
		}
		my $is_whole = is($status, 0, 'psql ran to the end');
		$is_whole &= is($n_run, $planned, 'as many tests as planned');
		diag("$out\n$err") unless $is_whole && $out !~ /^not ok/m;
		done_testing();
	};
}
done_testing();
