/// Durations as XML and the emulator's configuration write them: `PT1M`, `P1DT2H3M4.5S`.

/// ISO 8601 durations in milliseconds.
public enum ISODuration {
    /// Milliseconds; nil when the text is none. Years and months have no fixed length and are refused.
    public static func milliseconds(_ text: some StringProtocol) -> Int64? {
        var rest = Substring(text)
        guard rest.popFirst() == "P", !rest.isEmpty else { return nil }
        var total = 0.0
        var isTime = false
        while !rest.isEmpty {
            if rest.first == "T" {
                guard !isTime else { return nil }
                isTime = true
                rest.removeFirst()
                continue
            }
            let digits = rest.prefix { $0.isNumber || $0 == "." }
            rest = rest.dropFirst(digits.count)
            guard let number = Double(digits), let unit = rest.popFirst() else { return nil }
            switch (unit, isTime) {
            case ("D", false): total += number * 86_400_000
            case ("W", false): total += number * 604_800_000
            case ("H", true): total += number * 3_600_000
            case ("M", true): total += number * 60_000
            case ("S", true): total += number * 1000
            default: return nil
            }
        }
        return total.isFinite && total < 9e15 ? Int64(total.rounded()) : nil
    }

    /// As Azure writes it; the longest one in .NET's own words.
    public static func text(_ milliseconds: Int64) -> String {
        if milliseconds >= QueueSettings.forever { return "P10675199DT2H48M5.4775807S" }
        var rest = milliseconds
        var text = "P"
        if rest >= 86_400_000 {
            text += "\(rest / 86_400_000)D"
            rest %= 86_400_000
        }
        guard rest > 0 || text == "P" else { return text }
        text += "T"
        if rest >= 3_600_000 { text += "\(rest / 3_600_000)H" }
        rest %= 3_600_000
        if rest >= 60_000 { text += "\(rest / 60_000)M" }
        rest %= 60_000
        if rest > 0 || text.hasSuffix("T") {
            text += rest % 1000 == 0 ? "\(rest / 1000)S" : "\(Double(rest) / 1000)S"
        }
        return text
    }
}
