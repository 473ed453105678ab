#!/usr/bin/perl
# The pages of doc/ are as their sources: views, errors and settings word for
# word; what the other pages name exists, and their links lead somewhere.
use strict;
use warnings;
use File::Basename;
use Test::More;

my %made = ('doc-views' => 'doc/views.md', 'doc-errors' => 'doc/errors.md', 'doc-settings' => 'doc/settings.md');
is(system($^X, "scripts/$_", '--check'), 0, "$made{$_} is as scripts/$_ makes it") foreach sort keys %made;

my @pages = sort('README.md', glob('doc/*.md bench/*.md test/*/README.md src/README.md src/*/README.md'));
my $known = join("\n", map { slurp($_) } glob('sql/install/*.sql sql/*.sql src/*.[ch] src/*/*.[ch]'));
is_deeply([ map { unknown_names($_) } @pages ], [], 'functions, views, tables and settings that pages name exist');
is_deeply([ map { dead_links($_) } @pages ], [], 'links between pages lead somewhere');
done_testing();

sub slurp
{
	my ($path) = @_;
	open my $file, '<', $path or return '';
	local $/ = undef;
	my $content = <$file>;
	return $content;
}

# payshard.NAME, and NAME.c or FLOOR/NAME.c: not in the sources
sub unknown_names
{
	my ($page) = @_;
	my $text = slurp($page);
	my %bad;
	while ($text =~ /\bpayshard\.(\w+)\b(?!\*)/g)
	{
		my $name = $1;
		$bad{"payshard.$name"} = 1
		  unless $known =~ /\bpayshard\.$name\b/ || $name =~ /^(?:c|so|control|md)$/;
	}
	while ($text =~ m{(?<![\w/])((?:ground|node|link|write|route|keep|watch)/\w+\.[ch])\b}g)
	{
		$bad{$1} = 1 unless -f "src/$1";
	}
	return map { "$page: $_" } sort keys %bad;
}

# [text](file#heading) relative to the page
sub dead_links
{
	my ($page) = @_;
	my $text = slurp($page);
	my @bad;
	while ($text =~ /\]\(([^)\s]+)\)/g)
	{
		my $link = $1;
		next if $link =~ /^\w+:/;
		my ($path, $heading) = split /#/, $link, 2;
		my $file = $path eq '' ? $page : dirname($page) . "/$path";
		push @bad, "$page: $link" if !-e $file || (defined $heading && !has_heading($file, $heading));
	}
	return @bad;
}

sub has_heading
{
	my ($file, $heading) = @_;
	foreach my $line (split /\n/, slurp($file))
	{
		next unless $line =~ /^#+\s+(.*)/;
		my $anchor = lc $1;
		$anchor =~ s/[^\w\s-]//g;
		$anchor =~ s/\s/-/g;
		return 1 if $anchor eq $heading;
	}
	return 0;
}
