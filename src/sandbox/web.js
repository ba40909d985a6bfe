// Names of the web platform that app code may expect: loaded when one of them is touched.

export default {};
