#!/usr/bin/perl
# The SQL surface on one node: test/sql against expected/.
use strict;
use warnings;
use File::Basename;
use Test::More;
use PayshardSuite;

my @names = map { basename($_, '.sql') } sort glob('test/sql/*.sql');
plan skip_all => 'no files in test/sql' unless @names;

# pg_regress looks for expected/ in its output directory: here.
PayshardSuite::run_driver(
	$ENV{PG_REGRESS}, '.',
	'--inputdir=test',
	'--temp-instance=tmp_check_regress',
	'--temp-config=test/payshard.conf',
	'--no-locale', '--encoding=UTF8',
	'--dbname=contrib_regression', @names);
