//! Answers of query services: an output's JSON turned into XML, lists as `<member>` elements (`<item>` for ec2).

use std::fmt::Write as _;

use serde_json::Value;
use uuid::Uuid;

use super::error::ApiError;
use super::operation::Service;

/// Writes a successful answer. Operations without output have no Result element.
pub(crate) fn answer(service: Service, operation: &str, output: &Value, request_id: Uuid) -> String {
    let mut text = format!("<{operation}Response xmlns=\"{}\">", service.xml_namespace());
    if !output.is_null() {
        element(&mut text, &format!("{operation}Result"), output, "member");
    }
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation}Response>"
    );
    text
}

/// Writes a successful answer of ec2: no Result element, the request's id first.
pub(crate) fn ec2_answer(service: Service, operation: &str, output: &Value, request_id: Uuid) -> String {
    let namespace = service.xml_namespace();
    let mut text = format!("<{operation}Response xmlns=\"{namespace}\"><requestId>{request_id}</requestId>");
    for (name, value) in output.as_object().into_iter().flatten() {
        element(&mut text, name, value, "item");
    }
    let _ = writeln!(text, "</{operation}Response>");
    text
}

/// Writes an error of ec2.
pub(crate) fn ec2_error(service: Service, error: &ApiError, request_id: Uuid) -> String {
    let (code, message) = (error.code(service), escape(&error.to_string()));
    format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
         <RequestID>{request_id}</RequestID></Response>\n"
    )
}

/// Writes an error.
pub(crate) fn error(service: Service, error: &ApiError, request_id: Uuid) -> String {
    let kind = if error.is_fault() { "Receiver" } else { "Sender" };
    let code = error.code(service);
    let message = escape(&error.to_string());
    format!(
        "<ErrorResponse xmlns=\"{}\"><Error><Type>{kind}</Type><Code>{code}</Code><Message>{message}</Message></Error>\
         <RequestId>{request_id}</RequestId></ErrorResponse>\n",
        service.xml_namespace()
    )
}

/// Writes a value as an element. Names are those of our own output types: plain letters.
fn element(text: &mut String, name: &str, value: &Value, item: &str) {
    let _ = match value {
        Value::Null => Ok(()),
        Value::Bool(value) => write!(text, "<{name}>{value}</{name}>"),
        Value::Number(value) => write!(text, "<{name}>{value}</{name}>"),
        Value::String(value) => write!(text, "<{name}>{}</{name}>", escape(value)),
        Value::Array(values) => {
            let _ = write!(text, "<{name}>");
            values.iter().for_each(|value| element(text, item, value, item));
            write!(text, "</{name}>")
        }
        Value::Object(members) => {
            let _ = write!(text, "<{name}>");
            members.iter().for_each(|(name, value)| element(text, name, value, item));
            write!(text, "</{name}>")
        }
    };
}

/// Escapes markup; characters that XML 1.0 cannot hold become U+FFFD, carriage returns stay by reference.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\r' => escaped.push_str("&#13;"),
            '\t' | '\n' => escaped.push(c),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn outputs_become_the_documented_xml() {
        let output = json!({"User": {"UserName": "a<b&\"c\"\u{1}", "Tags": [{"Key": "k", "Value": ""}], "Path": null},
            "IsTruncated": false, "Count": 2});
        assert_eq!(
            answer(Service::Iam, "GetUser", &output, Uuid::nil()),
            "<GetUserResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><GetUserResult><Count>2</Count>\
             <IsTruncated>false</IsTruncated><User><Tags><member><Key>k</Key><Value></Value></member></Tags>\
             <UserName>a&lt;b&amp;&quot;c&quot;\u{fffd}</UserName></User></GetUserResult><ResponseMetadata>\
             <RequestId>00000000-0000-0000-0000-000000000000</RequestId></ResponseMetadata></GetUserResponse>\n"
        );
        assert!(!answer(Service::Iam, "DeleteUser", &Value::Null, Uuid::nil()).contains("Result"));
    }

    #[test]
    fn answers_and_errors_of_ec2_have_their_own_form() {
        let output = json!({"tagSet": [{"key": "a<b"}], "nextToken": null});
        assert_eq!(
            ec2_answer(Service::Ec2, "DescribeTags", &output, Uuid::nil()),
            "<DescribeTagsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>\
             00000000-0000-0000-0000-000000000000</requestId><tagSet><item><key>a&lt;b</key></item></tagSet>\
             </DescribeTagsResponse>\n"
        );
        let refused = ApiError::bad("InvalidInstanceID.NotFound", "no <i>");
        assert_eq!(
            ec2_error(Service::Ec2, &refused, Uuid::nil()),
            "<Response><Errors><Error><Code>InvalidInstanceID.NotFound</Code><Message>no &lt;i&gt;</Message></Error>\
             </Errors><RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>\n"
        );
    }

    #[test]
    fn every_output_is_well_formed_xml() {
        let text = "a\u{0}\u{b}]]><!--\r\n\t'\"&;\u{fffe}한글\u{1f600}";
        let output = json!({"A": [text, [text], {"B": text}], "C": [], "D": {}, "E": 1.5});
        let xml = answer(Service::Sts, "X", &output, Uuid::nil());
        let mut reader = quick_xml::Reader::from_str(&xml);
        let mut depth = 0i32;
        loop {
            match reader.read_event().unwrap() {
                quick_xml::events::Event::Start(_) => depth += 1,
                quick_xml::events::Event::End(_) => depth -= 1,
                quick_xml::events::Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(depth, 0);
    }

    #[test]
    fn errors_name_whose_fault_it_is() {
        let sender = error(Service::Iam, &ApiError::no_such_entity("no <user>"), Uuid::nil());
        assert!(sender.contains("<Type>Sender</Type><Code>NoSuchEntity</Code><Message>no &lt;user&gt;</Message>"));
        let fault = error(Service::Iam, &ApiError::internal(anyhow::anyhow!("secret cause")), Uuid::nil());
        assert!(fault.contains("<Type>Receiver</Type><Code>InternalFailure</Code>") && !fault.contains("secret"));
    }
}
