import StorageAccounts
import Testing

@Suite struct XMLTests {
    @Test func `leaves are read in order, entities replaced`() {
        let text =
            "<?xml version=\"1.0\"?><BlockList><Latest>YQ==</Latest>\n<Latest a=\"b\">&lt;&#233;&#x41;&amp;</Latest><Empty /></BlockList>"
        #expect(
            XMLReader.leaves(of: Array(text.utf8))
                == [
                    XMLElement(name: "Latest", text: "YQ=="), XMLElement(name: "Latest", text: "<éA&"),
                    XMLElement(name: "Empty", text: ""),
                ])
    }

    @Test(arguments: [
        "<a>", "</a>", "<a></b>", "<a>&unknown;</a>", "<a>&#0;</a>", "<>x</>", "<a", "<![CDATA[x]]>",
        String(repeating: "<a>", count: 40), "<a>&#x110000;</a>", "<a>&amp</a>",
    ])
    func `what is no such document is refused`(text: String) {
        #expect(XMLReader.leaves(of: Array(text.utf8)) == nil)
    }

    @Test func `what is written can be read again`() {
        var writer = XMLWriter()
        writer.open("List")
        writer.element("Text", "a<b>&\"c\r\n\u{1}é")
        writer.name("tab\there")
        writer.close("List")
        #expect(
            XMLReader.leaves(of: writer.bytes)
                == [
                    XMLElement(name: "Text", text: "a<b>&\"c\r\né"),
                    XMLElement(name: "Name", text: "tab%09here", isEncoded: true),
                ])
    }
}
