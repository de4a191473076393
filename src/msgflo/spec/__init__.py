"""Tests that are data: suites in the format of fbp-spec, and what runs them.

A suite says what goes into a component or graph, and what is expected to come out::

    topic: images/Resize
    cases:
      - name: a large picture
        assertion: should be made smaller
        inputs:
          in: {url: "http://example.com/large.jpg"}
        expect:
          out: {path: "$.width", below: 801}

:mod:`.suite` reads them and :mod:`.expectation` judges what came out, both pure. :mod:`.runner`
runs them on a runtime: :mod:`.inprocess` (in milliseconds, over ``direct://``) or :mod:`.remote`
(any runtime that speaks the FBP protocol). :mod:`.report` says what became of them;
:mod:`.pytest_plugin` makes them tests of pytest; :mod:`.recording` makes suites of live traffic.
"""
