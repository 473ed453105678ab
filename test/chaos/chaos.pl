#!/usr/bin/perl
# test/chaos/chaos.pl
#		Whatever happens to the nodes, is every operation as its client was told?
#
#	make chaos [CHAOS_SECONDS=600] [CHAOS_SEED=n] [CHAOS_ROUNDS=n] [CHAOS_FAULTS='kill9 cut_off']
#
# Round by round: clients write at every node, one fault or two of them hit, they are
# healed, everything must be in sync again, the clients stand still, and all copies are compared with their logs.
# The sequence of faults follows from the seed alone.  The last line is
# "lost 0 doubled 0 diverged 0", the exit status 0, when nothing is wrong.  What a failed run leaves stays where it says.
use strict;
use warnings;
use Cwd ();
use File::Basename ();
use lib Cwd::abs_path(File::Basename::dirname(__FILE__));
use ChaosCluster;
BEGIN { ChaosCluster->enter }
use ChaosRun;
use Test::More;

# its own lines only, not those of the frame
Test::More->builder->no_diag(1);
my $run = eval {
	ChaosRun->new(
		source => Cwd::abs_path(File::Basename::dirname(__FILE__)),
		seed => $ENV{CHAOS_SEED} || undef, seconds => $ENV{CHAOS_SECONDS} || 600,
		rounds => $ENV{CHAOS_ROUNDS}, faults => $ENV{CHAOS_FAULTS}, rules_off => $ENV{CHAOS_RULES_OFF});
} or BAIL_OUT($@);
$run->go;
exit($run->finish ? 0 : 1);
