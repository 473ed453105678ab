#!/usr/bin/perl
# The SQL surface on one node: test/sql against expected/.
use strict;
use warnings;
use File::Basename;
use Test::More;
use PayshardSuite;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

my @names = map { basename($_, '.sql') } sort glob('test/sql/*.sql');
plan skip_all => 'no files in test/sql' unless @names;

# Not a --temp-instance of pg_regress: that runs with fsync off, and a node refuses to.
my $server = PostgreSQL::Test::Cluster->new('regress');
$server->init(extra => [ '--no-locale', '--encoding=UTF8', '-U', 'postgres' ]);
$server->append_conf('postgresql.conf', PostgreSQL::Test::Utils::slurp_file('test/payshard.conf'));
$server->start;

# pg_regress looks for expected/ in its output directory: here.
PayshardSuite::run_driver(
	$ENV{PG_REGRESS}, '.',
	'--inputdir=test',
	'--host=' . $server->host, '--port=' . $server->port,
	'--user=postgres',
	'--dbname=contrib_regression', @names);
$server->stop('immediate');
