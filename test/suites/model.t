#!/usr/bin/perl
# The protocol model (test/model): its rules hold in the bounds of the quick runs, and
# each rule, switched off, gives a counterexample.  "make check-model" searches further.
use strict;
use warnings;
use Test::More;

plan skip_all => 'spin is not installed (Debian package "spin")' unless grep { -x "$_/spin" } split /:/, $ENV{PATH};

my $n = 0;
open my $run, '-|', 'test/model/run', 'quick' or die "could not start test/model/run: $!";
while (my $line = <$run>)
{
	if ($line =~ /^(not )?ok \d+ - (.*)/) { ok(!$1, $2); $n++; }
	elsif ($line =~ /^#/) { diag($line); }
}
ok(close($run), 'all runs are as expected');
cmp_ok($n, '>', 0, 'there are runs');
done_testing();
