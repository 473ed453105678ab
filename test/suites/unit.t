#!/usr/bin/perl
# The ground floor alone, no server: "make -C test/unit check".
use strict;
use warnings;
use Test::More;

plan skip_all => 'no test/unit/Makefile' unless -f 'test/unit/Makefile';

my @lines = split /\n/, `make -s -C test/unit check 2>&1`;
my $status = $?;
# Its lines may be TAP themselves: indented, they do not confuse ours.
diag(map { "  $_\n" } @lines) if $status != 0;
note(map { "  $_\n" } @lines) if $status == 0;
is($status, 0, 'make -C test/unit check');
done_testing();
