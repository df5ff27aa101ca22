/// Decodes a chunked body (RFC 9112 §7.1) as its bytes come in, in any pieces.

/// A decoder without I/O. Extensions are checked and dropped, and so are trailers.
public struct ChunkedDecoder: Sendable {
    /// Bytes a chunk's size line may take, extensions included.
    public static let sizeLineLimit = 256
    /// Bytes the trailer section may take.
    public static let trailerLimit = 8192

    /// What feeding came to.
    public enum Progress: Sendable, Equatable {
        case needsMore
        case complete
        case failed(HTTPParseError)
    }

    private enum State: Sendable {
        /// In a size line. Leaves to `extension`, `sizeEnd`.
        case size
        /// In a size line behind the digits. Leaves to `sizeEnd`.
        case `extension`
        /// After the size line's CR. Leaves to `data`, or `trailerStart` after the last chunk.
        case sizeEnd
        /// In the data. Leaves to `dataEnd`.
        case data
        /// Wants the CR, then the LF after the data. Leaves to `size`.
        case dataEnd, dataLineFeed
        /// At the start of a trailer line. Leaves to `trailer`, `finalLineFeed`.
        case trailerStart
        /// In a trailer line. Leaves to `trailerLineFeed`.
        case trailer
        /// Wants the LF of a trailer line. Leaves to `trailerStart`.
        case trailerLineFeed
        /// Wants the last LF. Leaves to `done`.
        case finalLineFeed
        case done
    }

    private var state = State.size
    private var remaining = 0
    private var digits = 0
    private var lineBytes = 0
    private var trailerBytes = 0
    private let bodyLimit: Int

    /// - Parameter bodyLimit: bytes of data accepted in all; one more is refused with 413.
    public init(bodyLimit: Int) { self.bodyLimit = bodyLimit }

    /// Takes bytes, appends data to `body`, and tells how many bytes were consumed.
    public mutating func feed(_ bytes: Span<UInt8>, into body: inout [UInt8]) -> (consumed: Int, progress: Progress) {
        var index = 0
        while index < bytes.count {
            if case .data = state {
                let count = min(remaining, bytes.count - index)
                unsafe bytes.extracting(index..<(index + count)).withUnsafeBufferPointer {
                    unsafe body.append(contentsOf: $0)
                }
                index += count
                remaining -= count
                if remaining == 0 { state = .dataEnd }
                continue
            }
            let byte = bytes[index]
            index += 1
            do throws(HTTPParseError) {
                try step(byte, bodyCount: body.count)
            } catch {
                return (index, .failed(error))
            }
            if case .done = state { return (index, .complete) }
        }
        return (index, .needsMore)
    }

    private mutating func step(_ byte: UInt8, bodyCount: Int) throws(HTTPParseError) {
        switch state {
        case .size, .extension: try sizeLine(byte)
        case .sizeEnd:
            guard byte == 0x0A else { throw HTTPParseError(400, "a chunk size does not end in CR LF") }
            guard remaining <= bodyLimit - bodyCount else { throw HTTPParseError(413, "the body is too large") }
            state = remaining == 0 ? .trailerStart : .data
        case .dataEnd:
            guard byte == 0x0D else { throw HTTPParseError(400, "a chunk is longer than its size") }
            state = .dataLineFeed
        case .dataLineFeed:
            guard byte == 0x0A else { throw HTTPParseError(400, "a chunk does not end in CR LF") }
            (state, digits, lineBytes) = (.size, 0, 0)
        case .trailerStart, .trailer: try trailer(byte)
        case .trailerLineFeed:
            guard byte == 0x0A else { throw HTTPParseError(400, "a trailer does not end in CR LF") }
            state = .trailerStart
        case .finalLineFeed:
            guard byte == 0x0A else { throw HTTPParseError(400, "the body does not end in CR LF") }
            state = .done
        case .data, .done: break
        }
    }

    private mutating func sizeLine(_ byte: UInt8) throws(HTTPParseError) {
        lineBytes += 1
        guard lineBytes <= Self.sizeLineLimit else { throw HTTPParseError(400, "a chunk size line is too long") }
        if byte == 0x0D {
            guard digits > 0 else { throw HTTPParseError(400, "a chunk size is missing") }
            state = .sizeEnd
            return
        }
        if case .extension = state {
            guard byte == 0x09 || (byte >= 0x20 && byte != 0x7F) else {
                throw HTTPParseError(400, "a control character in a chunk extension")
            }
            return
        }
        if byte == UInt8(ascii: ";"), digits > 0 {
            state = .extension
            return
        }
        guard let digit = hexadecimalDigit(byte) else { throw HTTPParseError(400, "a chunk size is not hexadecimal") }
        if digits == 0 { remaining = 0 }
        digits += 1
        guard digits <= 15 else { throw HTTPParseError(400, "a chunk size is too large") }
        remaining = remaining << 4 | digit
    }

    private mutating func trailer(_ byte: UInt8) throws(HTTPParseError) {
        trailerBytes += 1
        guard trailerBytes <= Self.trailerLimit else { throw HTTPParseError(431, "the trailers are too large") }
        if byte == 0x0D {
            if case .trailerStart = state { state = .finalLineFeed } else { state = .trailerLineFeed }
            return
        }
        guard byte == 0x09 || (byte >= 0x20 && byte != 0x7F) else {
            throw HTTPParseError(400, "a control character in a trailer")
        }
        state = .trailer
    }
}

/// The value of a hexadecimal digit.
func hexadecimalDigit(_ byte: UInt8) -> Int? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): Int(byte) - 0x30
    case UInt8(ascii: "a")...UInt8(ascii: "f"): Int(byte) - 0x57
    case UInt8(ascii: "A")...UInt8(ascii: "F"): Int(byte) - 0x37
    default: nil
    }
}
