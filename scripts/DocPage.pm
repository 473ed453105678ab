# DocPage: what the scripts share that make a page of doc/ from a source.
#
# A page is made whole, never edited; "--check" says whether the file is as its
# source.  Names are relative to the clone, into which use of this goes.
package DocPage;
use strict;
use warnings;
use Cwd qw(abs_path);
use Exporter qw(import);
use File::Basename;

our @EXPORT = qw(slurp install_script cell finish);

chdir(dirname(abs_path(__FILE__)) . '/..') or die "could not enter the clone: $!";

sub slurp
{
	my ($path) = @_;
	open my $file, '<', $path or return '';
	local $/ = undef;
	my $content = <$file>;
	return $content;
}

# What CREATE EXTENSION runs: the parts in order, as make puts them together.
sub install_script { return join('', map { slurp($_) } sort(glob('sql/install/*.sql'))); }

# A text as the cell of a table.
sub cell
{
	my ($text) = @_;
	$text =~ s/\|/\\|/g;
	return $text;
}

# Writes the page, or with --check compares it and exits accordingly.
sub finish
{
	my ($page, $text, $source) = @_;
	if (@ARGV && $ARGV[0] eq '--check')
	{
		exit 0 if slurp($page) eq $text;
		print STDERR "$page is not as $source: run scripts/" . basename($0) . "\n";
		exit 1;
	}
	open my $out, '>', $page or die "could not write $page: $!";
	print {$out} $text;
	close $out or die "could not write $page: $!";
	return;
}

1;
