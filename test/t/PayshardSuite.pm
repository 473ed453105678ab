# PayshardSuite.pm
#		Runs one of PostgreSQL's own drivers as one TAP test: the lines of the
#		driver become test points, the differences become diagnostics.
package PayshardSuite;

use strict;
use warnings;
use File::Basename;
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
	is($?, 0, basename($program) . " ran $n_run tests") or show_failure($output, \@lines);
	done_testing();
	return;
}

sub show_failure
{
	my ($output, $lines) = @_;

	diag("The driver said:\n", @$lines);
	show_file("$output/regression.diffs", 0);
	# The server's log matters where it died, and where the tests did not begin.
	my $log = "$output/log/postmaster.log";
	$log = "$output/log/initdb.log" unless -f $log;
	show_file($log, 1) if !-f "$output/regression.diffs" || has_crash($log);
	return;
}

sub has_crash
{
	my ($path) = @_;
	open my $file, '<', $path or return 0;
	return scalar(grep { /PANIC|TRAP|terminated by signal/ } <$file>);
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
