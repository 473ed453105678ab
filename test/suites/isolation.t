#!/usr/bin/perl
# Two sessions on one node, exact interleavings: test/isolation/specs.
use strict;
use warnings;
use File::Basename;
use Test::More;
use PayshardSuite;

my @names = map { basename($_, '.spec') } sort glob('test/isolation/specs/*.spec');
plan skip_all => 'no files in test/isolation/specs' unless @names;

PayshardSuite::run_driver(
	"$ENV{PAYSHARD_PGXS}/src/test/isolation/pg_isolation_regress", 'output_iso',
	'--inputdir=test/isolation',
	'--temp-instance=tmp_check_iso',
	'--temp-config=test/payshard.conf',
	'--no-locale', '--encoding=UTF8',
	'--load-extension=payshard',
	'--dbname=contrib_regression', @names);
