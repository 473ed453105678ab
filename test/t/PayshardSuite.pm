# PayshardSuite.pm
#		Runs one of PostgreSQL's own drivers as one TAP test: the lines of the
#		driver become test points, the differences become diagnostics.
package PayshardSuite;

use strict;
use warnings;
use Test::More;

my $diff_lines_max = 150;

# run_driver(program, output directory, arguments...)
# Every "test foo ... ok" line is one test point.
sub run_driver
{
	my ($program, $output, @arguments) = @_;
	my @command = ($program, "--outputdir=$output", "--bindir=$ENV{PAYSHARD_BIN}", @arguments);
	my ($n_run, @lines) = (0);

	mkdir $output;
	open my $pipe, '-|', join(' ', map { "'$_'" } @command) . ' 2>&1'
	  or die "could not run $program: $!";
	while (my $line = <$pipe>)
	{
		push @lines, $line;
		next unless $line =~ /^(?:test|not ok|ok)?\s*(\S+)\s+\.\.\. (ok|FAILED|failed)/;
		ok($2 eq 'ok', $1);
		$n_run++;
	}
	close $pipe;
	is($?, 0, "$program ran $n_run tests") or show_failure($output, \@lines);
	done_testing();
	return;
}

sub show_failure
{
	my ($output, $lines) = @_;

	diag("The driver said:\n", @$lines);
	show_file("$output/regression.diffs", 0);
	# The first log says why there was no second.
	show_file(-f "$output/log/postmaster.log" ? "$output/log/postmaster.log" : "$output/log/initdb.log", 1);
	return;
}

# The first lines of a file, or its last ones.
sub show_file
{
	my ($path, $from_end) = @_;

	open my $file, '<', $path or return;
	my @lines = <$file>;
	my $n_cut = @lines - $diff_lines_max;
	if ($n_cut > 0)
	{
		splice(@lines, $from_end ? 0 : $diff_lines_max, $n_cut);
		push @lines, "... $n_cut lines left out of $path\n";
	}
	diag("---- $path\n", @lines);
	return;
}

1;
