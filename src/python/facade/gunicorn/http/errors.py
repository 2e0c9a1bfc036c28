"""The exceptions of gunicorn's HTTP parser, for code that catches or raises them.

The parser here is not Python, so nothing in this package raises them. Each keeps gunicorn's arguments, attributes and
text.
"""


class ParseException(Exception):
    """A request that is refused."""


class _Telling(ParseException):
    """One whose text is a sentence about its only argument."""

    attribute = ""
    sentence = "{}"

    def __init__(self, value):
        super().__init__(value)
        setattr(self, self.attribute, value)

    def __str__(self):
        return self.sentence.format(getattr(self, self.attribute))


class NoMoreData(IOError):
    def __init__(self, buf=None):
        super().__init__(buf)
        self.buf = buf

    def __str__(self):
        return f"No more data after: {self.buf!r}"


class ConfigurationProblem(_Telling):
    attribute, sentence, code = "info", "Configuration problem: {}", 500


class InvalidRequestLine(_Telling):
    attribute, sentence, code = "req", "Invalid HTTP request line: {!r}", 400


class InvalidRequestMethod(_Telling):
    attribute, sentence = "method", "Invalid HTTP method: {!r}"


class ExpectationFailed(_Telling):
    attribute, sentence = "expect", "Unable to comply with expectation: {!r}"


class InvalidHTTPVersion(_Telling):
    attribute, sentence = "version", "Invalid HTTP Version: {!r}"


class InvalidHeader(_Telling):
    attribute, sentence = "hdr", "Invalid HTTP Header: {!r}"

    def __init__(self, hdr, req=None):
        super().__init__(hdr)
        self.req = req


class ObsoleteFolding(_Telling):
    attribute, sentence = "hdr", "Obsolete line folding is unacceptable: {!r}"


class InvalidHeaderName(_Telling):
    attribute, sentence = "hdr", "Invalid HTTP header name: {!r}"


class InvalidResponseHeader(InvalidHeader):
    sentence = "Invalid response header from the application: {}"


class InvalidResponseHeaderName(InvalidHeaderName):
    sentence = "Invalid response header name from the application: {}"


class UnsupportedTransferCoding(_Telling):
    attribute, sentence, code = "hdr", "Unsupported transfer coding: {!r}", 501


class InvalidChunkSize(_Telling):
    attribute, sentence = "data", "Invalid chunk size: {!r}"


class ChunkMissingTerminator(_Telling):
    attribute, sentence = "term", r"Invalid chunk terminator is not '\r\n': {!r}"


class InvalidChunkExtension(_Telling):
    attribute, sentence = "reason", "Invalid chunk extension: {}"


class LimitRequestLine(ParseException):
    def __init__(self, size, max_size=None):
        super().__init__(size, max_size)
        self.size = size
        self.max_size = max_size

    def __str__(self):
        if self.max_size is None:
            return str(self.size)
        return f"Request Line is too large ({self.size} > {self.max_size})"


class LimitRequestHeaders(_Telling):
    attribute = "msg"


class InvalidProxyLine(_Telling):
    attribute, sentence, code = "line", "Invalid PROXY line: {!r}", 400


class InvalidProxyHeader(_Telling):
    attribute, sentence, code = "msg", "Invalid PROXY header: {}", 400


class ForbiddenProxyRequest(_Telling):
    attribute, sentence, code = "host", "Proxy request from {!r} not allowed", 403


class InvalidSchemeHeaders(ParseException):
    def __str__(self):
        return "Contradictory scheme headers"


class InvalidH2CPreface(_Telling):
    attribute, sentence = "data", "Expected HTTP/2 connection preface, got {!r}"
